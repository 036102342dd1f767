"""Records the canaries and shadows that this server has ended: the latest in memory, and each one's end in
the registry on disk.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from adapters.errors import UnknownAdapterError
from adapters.lora.manifest import Adapter
from adapters.registry.registry import Registry
from adapters.registry.served import ServedAdapters
from server.metrics.metrics import Metrics
from server.rollout.trials import Trial

AGAIN_SECONDS = 60.0
"""Seconds between attempts to write the end of a canary or shadow to the registry."""
CLOSE_SECONDS = 5.0
"""Maximum seconds for the last attempt to write the ends of canaries and shadows when the server stops."""
REMEMBERED = 16

log = logging.getLogger("oneseek.rollout")


@dataclass(slots=True, eq=False)
class EndedTrial:
    """A trial (a canary or shadow) that this server has ended, and why."""

    trial: Trial
    adapter: Adapter
    reason: str
    figures: Mapping[str, float]
    written: bool | None
    """True if the end of the trial is written to the registry; None if that is not needed."""
    when: datetime = field(default_factory=lambda: datetime.now(UTC))
    again: float = 0.0
    """Time of the next attempt to write the end to the registry, in seconds of `time.monotonic()`."""
    tried: bool = False
    """True if an attempt to write the end to the registry has failed, which is logged once."""

    def to_json(self) -> dict[str, Any]:
        """Return the ended trial as JSON for `/health`."""
        return {
            "adapter": self.adapter.alias,
            "version": self.adapter.version,
            "kind": self.trial.kind,
            "state": "ended",
            "since": self.trial.since,
            "ended": self.when.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "reason": self.reason,
            "figures": self.figures,
            "written": self.written,
        }


class TrialEnds:
    """The trials that one server has ended. Their ends are written to `registry`, unless it is None."""

    def __init__(self, served: ServedAdapters, metrics: Metrics, registry: Registry | None) -> None:
        self._served = served
        self._metrics = metrics
        self._registry = registry
        self._latest = deque[EndedTrial](maxlen=REMEMBERED)
        self._unwritten: dict[tuple[str, str], EndedTrial] = {}
        """Maps each kind and alias to the end that is not written yet. At most one each, because a later
        trial replaces the earlier one in the registry.
        """
        self._writing: set[asyncio.Task[None]] = set()

    def refused(self, trial: Trial, adapter: Adapter) -> None:
        """Record the end of a trial whose version the engine cannot load. It is not written to the
        registry.
        """
        self._latest.append(
            EndedTrial(
                trial,
                adapter,
                "the engine cannot load this version; the server's log has the reason",
                {},
                None,
            )
        )

    def rolled_back(self, trial: Trial, adapter: Adapter, reason: str, figures: Mapping[str, float]) -> None:
        """Record the end of a trial whose version does worse than the active one. `write_due` writes it to
        the registry.
        """
        ended = EndedTrial(trial, adapter, reason, figures, None if self._registry is None else False)
        self._latest.append(ended)
        if ended.written is None:
            return
        earlier = self._unwritten.get((trial.kind, trial.alias))
        if earlier is not None:
            earlier.written = None
        self._unwritten[trial.kind, trial.alias] = ended

    def write_due(self) -> None:
        """Start to write ended trials to the registry, if their first or next attempt is due."""
        for ended in self._unwritten.values():
            if time.monotonic() >= ended.again:
                ended.again = math.inf
                task = asyncio.create_task(self._write(ended))
                self._writing.add(task)
                task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Try once more to write all ends of canaries and shadows, because a restart would lose them."""
        for ended in self._unwritten.values():
            if ended.again != math.inf:  # else it is being written
                ended.again = 0.0
        self.write_due()
        if self._writing:
            await asyncio.wait(self._writing, timeout=CLOSE_SECONDS)
        for task in self._writing:
            task.cancel()

    def to_json(self) -> list[dict[str, Any]]:
        """Return ended trials as JSON: those not written to the registry yet, then the recent ones, each
        once.
        """
        older = [ended for ended in self._unwritten.values() if ended not in self._latest]
        return [ended.to_json() for ended in (*older, *self._latest)]

    async def _write(self, ended: EndedTrial) -> None:
        """Write the end of a trial to the registry and the ledger. After any error, it is tried again
        later.
        """
        assert self._registry is not None
        trial, adapter = ended.trial, ended.adapter
        reason = f"rolled back {adapter.full_name} ({trial.kind}): {ended.reason}"
        try:
            await asyncio.to_thread(
                self._registry.settle, trial.alias, reason, since=trial.since, metrics=ended.figures
            )
        except UnknownAdapterError:
            pass  # no version of it is on disk any more
        except Exception as error:
            ended.again = time.monotonic() + AGAIN_SECONDS
            self._say_unwritten(ended, error)
            return
        ended.written = True
        if self._unwritten.get((trial.kind, trial.alias)) is ended:
            del self._unwritten[trial.kind, trial.alias]

    def _say_unwritten(self, ended: EndedTrial, error: Exception) -> None:
        if ended.tried:
            return
        ended.tried = True
        adapter, alias = ended.adapter, ended.trial.alias
        remedy = (
            f"to keep the trial from starting again after a restart, run: oneseek adapters settle {alias}"
        )
        log.error(
            "the trial of adapter %s as canary or shadow was ended, "
            "but the end could not be written to the registry (%s); %s",
            adapter.full_name,
            error,
            remedy,
        )
        if adapter in self._served.adapters():  # the metrics of one that went have gone too
            self._metrics.rollouts.labels(adapter.alias, adapter.version, "unwritten").inc()
