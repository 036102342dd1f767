"""OneSeek as a Ray Serve application. Start it in a checkout with `serve run deploy.ray.app:build
config=oneseek.yaml`.
"""

from server.asgi.ray.app import build

__all__ = ["build"]
