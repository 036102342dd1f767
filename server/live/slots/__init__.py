"""Which adapters are in the engine's slots, without deciding who answers; `live` imports it."""
