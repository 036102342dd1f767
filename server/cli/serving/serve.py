"""Implements `oneseek serve`, which starts the server."""

from __future__ import annotations

import sys

from server.config.settings import ResolvedSettings


def serve(resolved: ResolvedSettings) -> int:
    """Start the server and run until Ctrl-C or SIGTERM."""
    from server.asgi.starting import StartGuard

    code = 0
    with StartGuard() as guard:
        from server.asgi.compose import run_server

        code = run_server(resolved.settings, guard)
    if guard.stopped:
        from server.telemetry.records import stop_line

        as_json = resolved.settings.log_format == "json"
        print(stop_line() if as_json else "oneseek: stopped", file=sys.stderr)
        return 0
    return code
