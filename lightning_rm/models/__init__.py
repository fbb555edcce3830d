"""Reward models: a Hugging Face sequence classifier read at the positions a batch names."""
