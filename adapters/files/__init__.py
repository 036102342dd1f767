"""JSON files, base checkpoints and atomic writes on disk. Knows nothing of adapters; everything may import
it.
"""
