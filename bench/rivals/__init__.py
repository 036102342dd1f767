"""Other programs on the same weights, each run in its own environment; nothing imports them."""
