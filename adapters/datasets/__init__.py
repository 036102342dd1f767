"""The identity data, English and Swedish, and what reads and checks such data, without training; everything
may import it.
"""

NEAR = 0.8
"""Similarity from which two examples are near duplicates, unless one is asked for."""
