"""Reviewing: a page on which people look at pairs, the ones most worth it first, and say what they see."""
