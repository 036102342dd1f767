"""Settings: schema, sources and values, without acting on them; everything in `server` may import it."""
