"""Verbs for adapters, their versions and the ledger, not for training; only `server.cli.app` imports them."""
