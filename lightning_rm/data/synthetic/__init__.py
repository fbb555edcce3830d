"""A made world of preferences whose truth is known."""
