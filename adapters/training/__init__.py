"""How bases and adapters are trained. Heavy: torch, transformers, peft; the server never imports it."""
