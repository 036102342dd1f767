"""Measures a server under floods of requests and overload, over HTTP; only its own commands import it."""
