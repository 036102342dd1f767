"""Checks for what would keep a server from starting or serving well; `cli` imports it."""
