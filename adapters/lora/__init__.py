"""The format: a LoRA on disk, read, checked and compared, without torch; everything may import it."""
