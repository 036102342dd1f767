"""Reports the server's state to systemd by sd_notify(3): started, draining, and still alive.

A unit of `Type=notify` counts as started once the server answers. With `WatchdogSec=`, systemd restarts a
server whose event loop hangs. Nothing is sent without `NOTIFY_SOCKET`, which systemd sets.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress

from server.config.environment import process_environment

SOCKET, WATCHDOG, WATCHDOG_PROCESS = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"

log = logging.getLogger("oneseek.server")


class ServiceNotifier:
    """Sends this server's state to the service manager that started it, if any.

    A message that cannot be sent is dropped, so that the server keeps running.
    """

    def __init__(
        self,
        address: str | None = None,
        watchdog_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._interval = None if watchdog_seconds is None else watchdog_seconds / 2
        """Seconds between watchdog messages: half of the limit, as sd_watchdog_enabled(3) recommends."""
        self._clock = clock
        self._last_sign = float("-inf")

    @classmethod
    def take(cls, environ: MutableMapping[str, str] | None = None) -> ServiceNotifier:
        """Return the notifier that systemd's variables in `environ` describe (default: the process's
        environment).

        Removes these variables, so that child processes do not report in this process's name.
        """
        environ = process_environment() if environ is None else environ
        address = environ.pop(SOCKET, "")
        microseconds, process = environ.pop(WATCHDOG, ""), environ.pop(WATCHDOG_PROCESS, "")
        if not address:
            return cls()
        if address[0] not in "/@" or not hasattr(socket, "AF_UNIX"):
            log.warning(
                "the environment variable %s is %r, which is not a Unix socket, "
                "so the server cannot tell systemd when it is ready",
                SOCKET,
                address,
            )
            return cls()
        watched = microseconds.isascii() and microseconds.isdigit() and process in ("", str(os.getpid()))
        return cls(address, (int(microseconds) / 1e6 or None) if watched else None)

    def ready(self, status: str) -> None:
        """Report that the server is ready. `systemctl status` shows the line `status`."""
        self._send("READY=1", f"STATUS={status}")

    def stopping(self, status: str) -> None:
        """Report that the server drains or stops. Safe to call in a signal handler."""
        self._send("STOPPING=1", f"STATUS={status}")

    def sign_of_life(self) -> None:
        """Report that the event loop runs. Call it as often as you like; most calls send nothing."""
        if self._interval is not None and self._clock() - self._last_sign >= self._interval:
            self._last_sign = self._clock()
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self._address is None or sys.platform == "win32":
            return
        # A name that begins with @ is in the abstract namespace, which the kernel marks with a zero byte.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), address)
