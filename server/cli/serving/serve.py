"""`oneseek serve`."""

from __future__ import annotations

import sys

from server.config.environment import ends_quietly
from server.config.settings import ResolvedSettings


def serve(resolved: ResolvedSettings) -> int:
    """Start the server and answer until it is told to stop."""
    from server.asgi.compose import run_server

    try:
        return run_server(resolved.settings)
    except KeyboardInterrupt:
        print("oneseek: stopped", file=sys.stderr)
        if ends_quietly():
            return 0
        raise
