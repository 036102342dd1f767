"""The identity data, English and Swedish, as JSON lines beside this file."""

NEAR = 0.8
"""Similarity from which two examples are near duplicates, unless one is asked for."""
