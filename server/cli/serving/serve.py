"""`oneseek serve`."""

from __future__ import annotations

import sys

from server.config.settings import ResolvedSettings


def serve(resolved: ResolvedSettings) -> int:
    """Start the server and answer until it is told to stop."""
    from server.asgi.starting import StartGuard

    code = 0
    with StartGuard() as guard:
        from server.asgi.compose import run_server

        code = run_server(resolved.settings, guard)
    if guard.stopped:
        print("oneseek: stopped", file=sys.stderr)
        return 0
    return code
