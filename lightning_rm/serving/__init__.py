"""Serving: a reward model over HTTP."""
