"""Read and write files on disk: JSON, base checkpoints, atomic replacement. This package does not use
adapters; every package may import it.
"""
