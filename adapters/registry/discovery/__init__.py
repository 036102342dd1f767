"""Find the adapters on disk that can be served, without changing anything. `server` imports this package."""
