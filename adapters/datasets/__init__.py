"""The identity training data in English and Swedish (who the model says it is), and code that reads and
checks data sets. It imports no training code, so every package may import it.
"""

NEAR = 0.8
"""Default Jaccard similarity, from 0 to 1, at or above which two examples are reported as near duplicates."""
