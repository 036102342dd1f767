"""One module for each architecture: its config.json, its decoder, its weights' names; runners stay outside.

Imported by `model` and `launch`. What a LoRA may target in it is `adapters.lora.families`' business.
"""
