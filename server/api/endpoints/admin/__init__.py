"""Handles endpoints that need an admin key; `server.live` and `server.rollout` make the changes that these
endpoints request. Only `server.asgi` imports this package.
"""
