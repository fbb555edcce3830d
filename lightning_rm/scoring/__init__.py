"""Scoring: the one loop over batches that turns conversations into rewards, and the one loader of models for it."""
