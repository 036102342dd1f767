"""The system's limit of open files, which also limits connections."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable

SPARE = 200
"""Open files to reserve besides connections: adapters, graphs, the log, child processes."""

log = logging.getLogger("oneseek.server")


class DescriptorWatch:
    """Logs when file descriptors run out, and when some are available again.

    In between, the event loop closes new connections at once without a log line.
    """

    def __init__(self) -> None:
        self._exhausted = False

    def look(self) -> None:
        """Check whether a file descriptor is available, by opening one."""
        exhausted = False
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            exhausted = error.errno in (errno.EMFILE, errno.ENFILE)
        if exhausted and not self._exhausted:
            log.error(
                "the server is out of file descriptors and closes new connections; "
                "raise the limit of open files (`ulimit -n`)"
            )
        elif self._exhausted and not exhausted:
            log.warning("file descriptors are available again; the server accepts new connections")
        self._exhausted = exhausted


def allow_connections(wanted: int, say: Callable[[str], None]) -> int:
    """Raise this process's limit of open files for `wanted` connections; return how many it allows.

    Reports through `say` if they are fewer than `wanted`.
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
        say(
            f"warning: {most} open files allow only {allowed} of {wanted} connections (max_connections); "
            "raise `ulimit -n`"
        )
    return allowed
