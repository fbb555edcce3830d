"""What the paper's experiments are made of, on the made world: worlds, stages, claims, the page."""
