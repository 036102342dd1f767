"""Trials that were ended here: the latest are remembered, and the registry on disk is told of every one."""

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
"""Between two attempts to write what could not be written."""
CLOSE_SECONDS = 5.0
"""Longest time that the last attempt may take when the server stops."""
REMEMBERED = 16

log = logging.getLogger("oneseek.rollout")


@dataclass(slots=True, eq=False)
class EndedTrial:
    """A trial that was ended here, and why."""

    trial: Trial
    adapter: Adapter
    reason: str
    figures: Mapping[str, float]
    written: bool | None
    """Whether the registry on disk knows; None where it is not to."""
    when: datetime = field(default_factory=lambda: datetime.now(UTC))
    again: float = 0.0
    """When to try next, by `time.monotonic()`."""
    tried: bool = False
    """Whether that has failed, and was said."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for /health."""
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
    """The ends of one server's trials. `registry` is what is told of them; None tells nobody."""

    def __init__(self, served: ServedAdapters, metrics: Metrics, registry: Registry | None) -> None:
        self._served = served
        self._metrics = metrics
        self._registry = registry
        self._latest = deque[EndedTrial](maxlen=REMEMBERED)
        self._unwritten: dict[tuple[str, str], EndedTrial] = {}
        """Kind and alias → the end that the registry on disk is yet to learn of. At most one each: what
        ends later was set later, and the registry no longer asks for the earlier one."""
        self._writing: set[asyncio.Task[None]] = set()

    def refused(self, trial: Trial, adapter: Adapter) -> None:
        """The engine does not take a version; the registry on disk is not told."""
        self._latest.append(EndedTrial(trial, adapter, "the engine refuses it; the log says why", {}, None))

    def rolled_back(self, trial: Trial, adapter: Adapter, reason: str, figures: Mapping[str, float]) -> None:
        """A version was worse than the active one; `write_due` has the registry told."""
        ended = EndedTrial(trial, adapter, reason, figures, None if self._registry is None else False)
        self._latest.append(ended)
        if ended.written is None:
            return
        earlier = self._unwritten.get((trial.kind, trial.alias))
        if earlier is not None:
            earlier.written = None
        self._unwritten[trial.kind, trial.alias] = ended

    def write_due(self) -> None:
        """Begin to tell the registry of what it does not know, and was not just tried."""
        for ended in self._unwritten.values():
            if time.monotonic() >= ended.again:
                ended.again = math.inf
                task = asyncio.create_task(self._write(ended))
                self._writing.add(task)
                task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Try once more to write what is not written: after a restart, nobody here would know of it."""
        for ended in self._unwritten.values():
            if ended.again != math.inf:  # else it is being written
                ended.again = 0.0
        self.write_due()
        if self._writing:
            await asyncio.wait(self._writing, timeout=CLOSE_SECONDS)
        for task in self._writing:
            task.cancel()

    def to_json(self) -> list[dict[str, Any]]:
        """What is not written yet and the latest, each once, the latest last."""
        older = [ended for ended in self._unwritten.values() if ended not in self._latest]
        return [ended.to_json() for ended in (*older, *self._latest)]

    async def _write(self, ended: EndedTrial) -> None:
        """Tell the registry on disk, and the ledger; whatever goes wrong, it is tried again."""
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
        remedy = f"after a restart it would begin again: oneseek adapters settle {alias}"
        log.error("the end of %s is not written (%s); %s", adapter.full_name, error, remedy)
        if adapter in self._served.adapters():  # the metrics of one that went have gone too
            self._metrics.rollouts.labels(adapter.alias, adapter.version, "unwritten").inc()
