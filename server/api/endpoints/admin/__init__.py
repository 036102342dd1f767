"""Endpoints for admin keys, without the changes that they ask for; only `asgi` imports them."""
