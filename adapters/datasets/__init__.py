"""The identity data in English and Swedish, and the code that reads and checks such data, without training.
Everything may import it.
"""

NEAR = 0.8
"""Default similarity from which two examples are near duplicates."""
