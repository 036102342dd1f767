"""Measuring adapters (judge, questions, scores, intervals), without torch; everything may import it."""
