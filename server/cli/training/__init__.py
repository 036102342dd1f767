"""Verbs that make adapters, bases and data, without the jobs; only `server.cli.app` imports them."""
