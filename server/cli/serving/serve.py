"""`oneseek serve`."""

from __future__ import annotations

from server.config.settings import ResolvedSettings


def serve(resolved: ResolvedSettings) -> int:
    """Start the server and answer until it is told to stop."""
    from server.asgi.starting import StartGuard

    with StartGuard() as guard:
        from server.asgi.compose import run_server

        return run_server(resolved.settings, guard)
    return 0
