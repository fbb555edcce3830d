"""LightningModules, one a training method."""
