"""The operating system's limit of open files, which also limits the number of connections."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable

SPARE = 200
"""Number of file descriptors to keep for other uses than connections: adapters, model graphs, the log, child
processes.
"""

log = logging.getLogger("oneseek.server")


class DescriptorWatch:
    """Logs when the process runs out of file descriptors, and when some are available again.

    While there are none, the event loop closes new connections at once without a log line.
    """

    def __init__(self) -> None:
        self._exhausted = False

    def look(self) -> None:
        """Check whether a file descriptor is available, by opening a file, and log if that has changed."""
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
    """Raise this process's limit of open files for `wanted` connections. Returns how many connections it
    allows.

    Reports through `say` if it allows fewer than `wanted`.
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
            "to allow more, raise the limit of open files (`ulimit -n`)"
        )
    return allowed
