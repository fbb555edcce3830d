"""Publishing: a trained reward model as a folder for others, with what they must know to use it."""
