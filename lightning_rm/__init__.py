"""Reward models that survive noisy preferences, as PyTorch Lightning modules."""
