"""Reduce a raw message to the words that show its language, without judging them; `routing` imports it."""
