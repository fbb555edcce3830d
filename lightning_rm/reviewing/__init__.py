"""Reviewing: a page on which people look at pairs, those most worth a look first, and decide about their labels."""
