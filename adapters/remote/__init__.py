"""Adapters by URL, from the URL to a folder that the registry takes in, without serving; `server` uses it."""
