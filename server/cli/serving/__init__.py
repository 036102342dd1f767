"""Verbs that start a server or show what it would serve; only `server.cli.app` imports them."""
