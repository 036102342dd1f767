"""Train bases and adapters with torch, transformers and peft. Nothing that serves imports this package."""
