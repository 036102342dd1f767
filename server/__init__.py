"""The HTTP surface and the engines behind it."""
