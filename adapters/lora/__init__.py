"""The LoRA format on disk: read, checked and compared, without torch. Everything may import it."""
