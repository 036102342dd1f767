"""The application for `serve run deploy.ray.app:build config=oneseek.yaml`, run in a checkout."""

from server.asgi.ray.app import build

__all__ = ["build"]
