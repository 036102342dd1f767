"""Chooses the next tokens from a graph's logits (penalties, truncation, grammars), without running the graph;
the embedded engine imports it.
"""
