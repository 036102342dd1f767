"""`oneseek serve`."""

from __future__ import annotations

from server.config.settings import Resolved


def serve(resolved: Resolved) -> int:
    """Start the server and answer until it is told to stop."""
    from server.asgi.compose import run

    return run(resolved.settings)
