"""Runs other programs on the same weights, each in its own environment; nothing imports them."""
