"""From rows to token ids: chat templates, fitting, counting."""
