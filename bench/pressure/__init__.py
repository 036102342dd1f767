"""A server under floods and overload, over HTTP; only its own commands import it."""
