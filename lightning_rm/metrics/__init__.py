"""Metrics of pairs and of groups of responses, exact over all ranks."""
