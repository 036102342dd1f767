"""How bases and adapters are trained, with torch, transformers and peft; nothing that serves imports it."""
