"""Tokenised pairs and groups on disk, and the report of what became of every row."""
