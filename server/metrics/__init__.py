"""Measures the server and exports the metrics, without deciding anything; all of `server` may import it."""
