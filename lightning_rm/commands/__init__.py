"""The commands of `lightning-rm`: Hydra and configuration live here and nowhere below."""
