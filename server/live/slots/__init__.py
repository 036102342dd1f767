"""Decides which adapters are in the engine's slots, without routing; `live` imports this package."""
