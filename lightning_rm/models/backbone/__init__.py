"""Loading, preparing and exporting what a reward model is built on."""
