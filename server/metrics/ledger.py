"""Verifies the ledger in the background and exports the result as a metric. Requests never wait for this."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal, get_args

from adapters.errors import LedgerError
from adapters.ledger import Ledger
from adapters.ledger.origin import origin_file
from server.metrics.metrics import Metrics

LedgerHealth = Literal["intact", "repairable", "tampered", "removed", "unreadable", "none"]
"""The ledger's state, as `oneseek ledger verify` reports it. `removed`: it existed and is gone. `none`: it
never existed."""
BROKEN: tuple[LedgerHealth, ...] = ("tampered", "removed", "unreadable")
LOOK_SECONDS = 10.0
"""Seconds between two checks for changes of the ledger's files."""
VERIFY_SECONDS = 24 * 3600.0
"""Seconds after which the ledger is verified again even if its files have not changed."""
SHARE = 50
"""After each verification, the next one waits at least this many times as long as the verification took."""

log = logging.getLogger("oneseek.ledger")


class LedgerWatch:
    """Verifies the ledger in `folder` when it changes, and exports the result as metrics."""

    def __init__(self, folder: Path, public_key: Path | None, metrics: Metrics) -> None:
        self._folder = folder
        self._public_key = public_key
        self._metrics = metrics
        self._stamp: object = None
        self._next = self._rested = 0.0
        self._health: LedgerHealth | None = None

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Verify the ledger repeatedly until the `with` block ends."""
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _follow(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.look)
            except Exception:
                log.exception(
                    "verifying the ledger in %s raised an unexpected error; the server tries again soon",
                    self._folder,
                )
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Verify the ledger if its files have changed or a day has passed. Blocks, so call it in a worker
        thread.
        """
        now, stamp = time.monotonic(), self._stamp_now()
        if now < self._rested or (stamp == self._stamp and now < self._next):
            return
        health, entries = self._verify()
        took = time.monotonic() - now
        self._stamp, self._next = stamp, now + VERIFY_SECONDS
        self._rested = now + (SHARE + 1) * took
        self._export(health, entries)

    def _stamp_now(self) -> object:
        """Return a value that changes if any of the ledger's files does."""
        found: list[tuple[str, int, int]] = []
        with suppress(OSError), os.scandir(self._folder) as files:
            for file in files:
                if not file.name.endswith(".lock"):
                    stat = file.stat()
                    found.append((file.name, stat.st_size, stat.st_mtime_ns))
        return sorted(found)

    def _verify(self) -> tuple[LedgerHealth, int]:
        try:
            verdict = Ledger.open(self._folder).verify(self._public_key)
        except LedgerError as error:
            log.warning(
                "the ledger of adapter changes cannot be read, so its signatures are not verified "
                "(to check it, run oneseek ledger verify): %s",
                error,
            )
            return "unreadable", 0
        if verdict.state != "absent":
            return verdict.state, verdict.count
        return ("removed" if os.path.lexists(origin_file(self._folder)) else "none"), 0

    def _export(self, health: LedgerHealth, entries: int) -> None:
        if health in BROKEN and health != self._health:
            log.error(
                'the ledger in %s failed its verification with the result "%s"; '
                "for details run: oneseek ledger verify",
                self._folder,
                health,
            )
        self._health = health
        for state in get_args(LedgerHealth):
            self._metrics.ledger_state.labels(state).set(state == health)
        self._metrics.ledger_entries.set(entries)
        self._metrics.ledger_verified.set(time.time())
