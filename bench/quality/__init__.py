"""Checks over HTTP if a server routes to the right adapter, and what right and wrong adapters answer."""
