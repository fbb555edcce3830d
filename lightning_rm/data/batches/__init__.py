"""From tokenised pairs to batches in memory: layouts, orders, samplers, loaders."""
