"""Evaluate adapters: judge, questions, scores and intervals, without torch. Everything may import it."""
