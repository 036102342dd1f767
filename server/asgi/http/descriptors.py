"""How many connections the system lets this process have: each is an open file."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable

SPARE = 200
"""Open files beside connections: adapters, graphs, the log, child processes."""

log = logging.getLogger("oneseek.server")


class DescriptorWatch:
    """Logs when no file descriptor is left, and when there are some again.

    Those who connect meanwhile are closed at once by the event loop, which says nothing of it.
    """

    def __init__(self) -> None:
        self._exhausted = False

    def look(self) -> None:
        """Try whether one can be had."""
        exhausted = False
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            exhausted = error.errno in (errno.EMFILE, errno.ENFILE)
        if exhausted and not self._exhausted:
            log.error("no file descriptor is left, and new connections are closed; raise `ulimit -n`")
        elif self._exhausted and not exhausted:
            log.warning("there are file descriptors again, and new connections are served")
        self._exhausted = exhausted


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
