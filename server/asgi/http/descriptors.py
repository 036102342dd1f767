"""How many connections the system lets this process have: each is an open file."""

from __future__ import annotations

import sys
from collections.abc import Callable

SPARE = 200
"""Open files beside connections: adapters, graphs, the log, child processes."""


def allow_connections(wanted: int, say: Callable[[str], None]) -> int:
    """Raise this process's limit of open files for `wanted` connections; return how many it allows.

    Says so through `say` if they are fewer.
    """
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted + SPARE:
        return wanted
    most = wanted + SPARE if hard == resource.RLIM_INFINITY else min(hard, wanted + SPARE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    allowed = max(1, min(wanted, most - SPARE))
    if allowed < wanted:
        say(f"warning: {most} open files allow {allowed} connections, not {wanted}; raise `ulimit -n`")
    return allowed
