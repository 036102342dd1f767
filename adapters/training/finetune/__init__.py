"""Training a LoRA on a base, without the loop; `server.jobs` imports it."""
