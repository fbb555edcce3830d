"""Attention over several sequences in one row."""
