"""JSON, checkpoints and atomic writes on disk, without knowledge of adapters; everything may import it."""
