"""Tracks the replicas of an engine: which exist, how busy they are, and which adapters they have loaded."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from server.engines.ray.calls import ReplicaCall, ReplicaLostError, ReplicaStatus
from server.engines.ray.placement import ReplicaLoad
from server.engines.ray.replicas import Replicas
from server.errors import EngineDeadError
from server.metrics.engine_state import EngineState, Tier

LOOK_SECONDS = 0.5
"""Seconds between two checks which replicas exist and what state they report."""
ANSWER_SECONDS = 5.0
"""Seconds within which a replica must report its state."""
START_SECONDS = 600.0
"""Seconds within which the first replica must start. A large base takes minutes to load."""
SUSPECT_SECONDS = 5.0
"""Seconds for which a replica that has failed gets requests only if no other replica can take them. The time
ends early if the replica reports that it is alive.
"""

log = logging.getLogger("oneseek.ray")


class Fleet:
    """Watches the replicas of one engine.

    Calls `resized` with the number of replicas whenever it changes, and `gone` with the id of each replica
    that has stopped. Only `state` may be called from other threads than the event loop's.
    """

    def __init__(
        self, replicas: Replicas, resized: Callable[[int], None], gone: Callable[[str], None]
    ) -> None:
        self._replicas = replicas
        self._resized = resized
        self._gone = gone
        self._statuses: Mapping[str, ReplicaStatus] = {}
        """Maps replica ids to their last reports. Replaced, never changed: `state` runs in other threads."""
        self._heard: dict[str, float] = {}
        self._loads = Counter[str]()
        self._suspects: dict[str, float] = {}
        self.served = Counter[str]()
        """Maps each replica id to the number of requests sent to it, for the replicas that exist."""
        self.known = frozenset[str]()
        """Ids of the replicas that take requests."""
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Wait until a replica has reported its state. Raises `EngineDeadError` after `START_SECONDS`."""
        self._watcher = asyncio.create_task(self._watch())
        end = time.monotonic() + START_SECONDS
        while not self._statuses:
            if time.monotonic() > end:
                raise EngineDeadError(
                    f"no replica of the engine started within {START_SECONDS:g} seconds; "
                    "the replicas' logs in Ray have the reason"
                )
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Stop watching the replicas. Idempotent."""
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None

    async def refresh(self) -> None:
        """Ask every replica of the engine for its state now."""
        self._look()
        async with asyncio.TaskGroup() as looks:
            for name in self.known:
                looks.create_task(self._ask(name))

    def places(self) -> dict[str, ReplicaLoad]:
        """Map the id of each replica to its load. Replicas that have just failed are left out, unless all
        have failed.
        """
        self._look()
        now = time.monotonic()
        well = {name for name in self.known if self._suspects.get(name, 0.0) < now}
        return {name: self._place(name) for name in well or self.known}

    def sent(self, name: str) -> None:
        """Count a request that is being sent to the replica `name`, so that the replica's load is right when
        the next request is placed.
        """
        self._loads[name] += 1

    def began(self, name: str, sent: str) -> None:
        """Count a request that the replica `name` has begun. Ray may have passed it on from `sent`, the
        replica that it was sent to.
        """
        if name != sent:
            self.ended(sent)
            self.sent(name)
        self.served[name] += 1

    def ended(self, name: str) -> None:
        """Record that a request to the replica `name` has ended."""
        self._loads[name] -= 1
        if self._loads[name] <= 0:
            del self._loads[name]

    def suspect(self, name: str) -> None:
        """Record that the replica `name` has failed, so that other replicas are preferred for
        `SUSPECT_SECONDS`.
        """
        if name:
            self._suspects[name] = time.monotonic() + SUSPECT_SECONDS

    def resident(self) -> frozenset[str]:
        """Return the digests of all adapters that at least one replica holds."""
        return frozenset(digest for status in self._statuses.values() for digest in status.state.resident)

    def state(self) -> EngineState:
        """Combine the states of all replicas into one state of the engine, without the numbers of requests.
        Thread-safe.
        """
        states = [status.state for status in self._statuses.values()]
        alive = [state for state in states if state.alive]
        if not alive:
            return EngineState(alive=False, progress=0.0, restarting=True)
        resident: dict[str, Tier] = {}
        for state in alive:
            for digest, tier in state.resident.items():
                if tier == "device" or digest not in resident:
                    resident[digest] = tier
        # Use the best progress: Ray replaces a replica that hangs, while the others serve.
        best = min(alive, key=lambda state: state.progress)
        return EngineState(
            alive=True,
            progress=best.progress,
            slowest_step=best.slowest_step,
            kv_tokens=sum(state.kv_tokens for state in alive),
            kv_capacity=sum(state.kv_capacity for state in alive),
            kv_cached=sum(state.kv_cached for state in alive),
            prefix_queries=sum(state.prefix_queries for state in alive),
            prefix_hits=sum(state.prefix_hits for state in alive),
            preemptions=sum(state.preemptions for state in alive),
            made_way=sum(state.made_way for state in alive),
            resident=resident,
        )

    def _place(self, name: str) -> ReplicaLoad:
        status = self._statuses.get(name)
        resident = frozenset(status.state.resident) if status is not None else frozenset[str]()
        return ReplicaLoad(self._loads[name], resident)

    async def _watch(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self) -> None:
        """Update the set of known replicas. Calls `resized` and `gone` if replicas have started or
        stopped.
        """
        known = self._replicas.known
        if known == self.known:
            return
        for name in self.known - known:
            log.warning("engine replica %s has stopped and gets no more requests", name)
            self._suspects.pop(name, None)
            self.served.pop(name, None)
            self._heard.pop(name, None)
            self._gone(name)
        for name in known - self.known:
            log.info("engine replica %s is ready for requests", name)
        self.known = known
        self._statuses = {name: one for name, one in self._statuses.items() if name in known}
        self._resized(len(known))

    async def _ask(self, name: str) -> None:
        """Ask one replica for its state. If the replica does not answer, prefer other replicas for a
        while.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                status = await self._replicas.status(ReplicaCall(replica=name))
        except (ReplicaLostError, TimeoutError):
            self.suspect(name)
            self._forget_silent(name)
            return
        except Exception:
            log.exception(
                "engine replica %s does not report its state and gets no requests until it does", name
            )
            self.suspect(name)
            return
        if name in self.known:
            self._statuses = {**self._statuses, name: status}
            self._heard[name] = time.monotonic()
            if status.state.alive:
                self._suspects.pop(name, None)
            else:
                self.suspect(name)

    def _forget_silent(self, name: str) -> None:
        """Mark a replica as dead if it has not answered for twice `ANSWER_SECONDS`. It counts as alive again
        once it answers.
        """
        silent = time.monotonic() - self._heard.get(name, 0.0)
        status = self._statuses.get(name)
        if status is not None and silent > 2 * ANSWER_SECONDS:
            dead = replace(status.state, alive=False)
            self._statuses = {**self._statuses, name: ReplicaStatus(replica=name, state=dead)}
