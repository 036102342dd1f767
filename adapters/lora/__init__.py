"""The LoRA format on disk: read, checked and compared, without torch. Every package may import it."""
