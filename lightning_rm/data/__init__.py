"""From rows on disk to preference batches."""
