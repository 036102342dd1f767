"""How bases and adapters are trained. Heavy: torch, transformers, peft; nothing that serves imports it."""
