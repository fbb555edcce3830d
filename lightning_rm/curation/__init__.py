"""Curation: from raw pairs and votes to clean pairs, each with what was decided of it and why, and a report."""
