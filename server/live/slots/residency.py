"""Decides which adapters are in the engine: loads them on request, and evicts the least recently used ones.

A request whose adapters are all in the engine gets them at once. Other requests wait in one queue, first
come, first served. One adapter is loaded at a time, for all requests that wait for it. An adapter is never
evicted while a request needs it. If all slots have been in use for `CLOSE_AFTER` seconds, one of them accepts
no new requests until it is idle, so that waiting requests get a slot. Every wait ends after `PATIENCE`
seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from adapters.lora.manifest import Adapter
from server.engines.base import Engine
from server.errors import (
    AdapterNotLoadedError,
    AdapterRefusedError,
    AdaptersBusyError,
    AdapterUnavailableError,
    AdapterUnknownError,
    EngineDeadError,
    EngineError,
    NoSlotError,
    UnsupportedRequestError,
)
from server.live.slots.leases import Lease, SlotTicket
from server.live.slots.priorities import Priorities
from server.live.slots.slots import Slots
from server.metrics.metrics import Metrics

PATIENCE = 30.0
"""Maximum seconds that a request waits for its adapters to be loaded."""
CLOSE_AFTER = 1.0
"""Seconds that the first request in the queue waits for an idle slot before a slot in use stops accepting new
requests.
"""
LOOK_SECONDS = 0.01
"""Seconds between checks for an idle slot, while a request waits for one."""

log = logging.getLogger("oneseek.residency")


class Residency:
    """Loads adapters into the slots of one engine, and evicts them. Use it on the event loop only."""

    def __init__(self, engine: Engine, metrics: Metrics, priorities: Priorities) -> None:
        self._engine = engine
        self._metrics = metrics
        self.priorities = priorities
        self._slots = Slots(engine, priorities)
        self._line: list[SlotTicket] = []
        self._worker: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._loading: str | None = None
        self._unloading: set[asyncio.Task[None]] = set()
        self.on_damage: Callable[[Adapter, str], None] | None = None
        """Called with an adapter whose files have changed since they were accepted, and the reason."""
        self.on_refusal: Callable[[Adapter], Awaitable[bool]] | None = None
        """Called with an adapter that the engine refuses and never held. Returns True if it is no longer
        served.
        """
        self._accepted: set[str] = set()
        """Digests of all adapters that the engine has ever loaded."""

    async def load_first(self) -> None:
        """Load the adapters that have priority into the slots. Log those that the engine cannot load."""
        tried: set[str] = set()
        while True:  # what the engine refuses may leave its name to another version
            wanted = [one for one in self.priorities.first(self._slots.count) if one.digest not in tried]
            if not wanted:
                return
            tried |= {adapter.digest for adapter in wanted}
            await self.load_all(wanted)

    @property
    def has_free_slot(self) -> bool:
        """True if an adapter can be loaded without evicting another."""
        return self._slots.free

    async def load_all(self, adapters: Iterable[Adapter]) -> None:
        """Load `adapters` one after the other. Log those that the engine cannot load."""
        for adapter in adapters:
            with suppress(AdapterNotLoadedError, AdapterRefusedError):
                await self.ensure(adapter)

    async def ensure(self, adapter: Adapter) -> None:
        """Wait until `adapter` is in the engine. It may be evicted later. Raises the errors of `acquire`."""
        await self._have({adapter.digest: adapter}, keeps=False)

    async def acquire(self, adapters: Sequence[Adapter]) -> Lease:
        """Wait until all of `adapters` are in the engine. They stay there until the returned lease is closed.

        Raises `AdapterUnavailableError` if one has a `problem`, `AdapterRefusedError` if the engine cannot
        load one, `AdaptersBusyError` if no slot became free within `PATIENCE`, `AdapterNotLoadedError` if
        loading takes longer (it continues in the background), and `UnsupportedRequestError` for more adapters
        than slots.
        """
        began = time.monotonic()
        wanted = {adapter.digest: adapter for adapter in adapters}
        there = await self._have(wanted, keeps=True)
        return Lease(list(wanted), self._give_back, 0.0 if there else time.monotonic() - began)

    def check_spare(self, adapter: Adapter) -> None:
        """Raise `AdaptersBusyError` if keeping `adapter` in the engine would leave no slot for other
        adapters.
        """
        if not self._slots.spare(adapter.digest):
            raise AdaptersBusyError(
                f"pinned adapters, canaries and shadows hold all {self._slots.count} adapter slots; raise "
                f"max_adapters to load {adapter.full_name} as well"
            )

    def unload_later(self, adapter: Adapter) -> None:
        """Unload an adapter from the engine once no request uses it."""

        async def unload() -> None:
            with suppress(EngineError):
                await self._engine.unload(adapter.digest)

        task = asyncio.create_task(unload())
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)

    def close(self) -> None:
        """Cancel all pending loads and unloads."""
        for task in (*self._unloading, *filter(None, [self._worker])):
            task.cancel()

    async def _have(self, wanted: Mapping[str, Adapter], *, keeps: bool) -> bool:
        """Wait until all `wanted` adapters are in the engine, and keep them there if `keeps`. Returns True if
        all were there already.
        """
        for adapter in wanted.values():
            if adapter.problem is not None:
                # First: whatever is resident under a digest, nothing stands in for a damaged version.
                raise AdapterUnavailableError(f"{adapter.full_name}: {adapter.problem}")
        if all(map(self._slots.available, wanted)):
            if keeps:
                for digest in wanted:
                    self._slots.take(digest)
            return True
        self._check_slots(wanted.keys())
        ticket = SlotTicket(wanted, keeps, asyncio.get_running_loop().create_future())
        self._line.append(ticket)
        self._changed.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            await self._wait(ticket)
        except BaseException:
            self._leave(ticket)
            raise
        return False

    def _check_slots(self, digests: Collection[str]) -> None:
        """Raise an error if waiting cannot help: `NoSlotError` without slots, `UnsupportedRequestError` for
        too many adapters.
        """
        if not self._slots.count:
            raise NoSlotError(
                "this engine has no slots for adapters; restart the server with max_adapters above 0"
            )
        most = self._slots.most_with(digests)
        if len(digests) > most:
            raise UnsupportedRequestError(
                f"A blend of {len(digests)} adapters needs as many adapter slots, but only {most} are "
                "available (max_adapters, minus pinned adapters). Use fewer adapters.",
                "model",
            )

    async def _wait(self, ticket: SlotTicket) -> None:
        await asyncio.wait([ticket.done], timeout=PATIENCE)
        outcome = "ok" if ticket.done.done() else "timeout"
        self._metrics.adapter_wait.labels(outcome).observe(time.monotonic() - ticket.began)
        if ticket.done.done():
            ticket.done.result()
            return
        missing = [one for digest, one in ticket.adapters.items() if not self._slots.available(digest)]
        names = ", ".join(adapter.full_name for adapter in missing)
        if self._loading in ticket.adapters or any(self._slots.leaving(one.digest) for one in missing):
            raise AdapterNotLoadedError(
                f"adapter {names} is not loaded into the engine yet; loading continues, so retry shortly"
            )
        raise AdaptersBusyError(
            f"All {self._slots.count} adapter slots are in use, and none became free for {names} within "
            f"{PATIENCE:g} seconds. Raise max_adapters if this happens often."
        )

    def _leave(self, ticket: SlotTicket) -> None:
        """Remove a waiting request (`ticket`) whose wait has failed or whose client has disconnected."""
        if ticket in self._line:
            self._line.remove(ticket)
        elif ticket.keeps and ticket.granted:  # in the very moment in which it was given up
            self._give_back(list(ticket.adapters))
        self._let_go(ticket)
        self._changed.set()

    def _let_go(self, ticket: SlotTicket) -> None:
        for digest in ticket.own:
            self._slots.give_back(digest)
        ticket.own = []

    def _give_back(self, digests: Sequence[str]) -> None:
        for digest in digests:
            self._slots.give_back(digest)
        if self._line:
            self._changed.set()

    async def _work(self) -> None:
        """Load adapters for the waiting requests until no request waits."""
        try:
            while self._line:
                self._changed.clear()
                self._grant()
                if not self._line:
                    break
                ticket = self._next()
                if ticket is None or not await self._advance(ticket):
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), LOOK_SECONDS)
        except Exception:
            log.exception(
                "loading an adapter into the engine raised an unexpected error; "
                "all requests that wait for an adapter fail"
            )
            self._fail(
                list(self._line), EngineError("the engine failed to load an adapter; see the server's log")
            )
        finally:
            self._slots.closing = None
            for ticket in self._line:  # cancelled: nobody serves them any more
                self._let_go(ticket)
                ticket.done.cancel()
            self._line = []

    def _grant(self) -> None:
        """End the wait of every request whose adapters are all in the engine."""
        for ticket in [one for one in self._line if all(map(self._slots.available, one.adapters))]:
            self._line.remove(ticket)
            if ticket.keeps:
                for digest in ticket.adapters:
                    self._slots.take(digest)
            self._let_go(ticket)
            ticket.done.set_result(None)

    def _next(self) -> SlotTicket | None:
        """Return the first waiting request (ticket) none of whose adapters is being unloaded; None if there
        is no such request.
        """
        for ticket in self._line:
            if not any(map(self._slots.leaving, ticket.adapters)):
                return ticket
        return None

    async def _advance(self, ticket: SlotTicket) -> bool:
        """Load or evict one adapter for a waiting request. Returns False if it must wait until a slot is
        idle.
        """
        self._hold(ticket)
        missing = [digest for digest in ticket.adapters if not self._slots.available(digest)]
        if self._slots.closing in missing and self._slots.closing in self._engine.residents.open:
            self._slots.closing = None  # it is wanted again, and its turn has come
            return True
        if self._slots.free:
            await self._load(ticket.adapters[missing[0]])
            return True
        victim = self._slots.victim(ticket.adapters)
        if victim is not None:
            await self._evict(victim, ticket)
            return True
        now = time.monotonic()
        ticket.blocked = ticket.blocked or now
        if now - ticket.blocked >= CLOSE_AFTER:
            self._slots.close_one(ticket.adapters)
        return False

    def _hold(self, ticket: SlotTicket) -> None:
        """Keep those adapters of this waiting request (`ticket`) in the engine that are there already, and
        none of other waiting requests, so that two requests cannot block each other.
        """
        for other in self._line:
            if other is not ticket and other.own:
                self._let_go(other)
        for digest in ticket.adapters:
            if digest not in ticket.own and self._slots.available(digest):
                self._slots.take(digest)
                ticket.own.append(digest)

    async def _evict(self, digest: str, ticket: SlotTicket) -> None:
        self._slots.closing = None
        ticket.blocked = None
        try:
            await self._engine.unload(digest, keep=True)
        except EngineError as error:
            self._fail([ticket], error)
            return
        self._metrics.evictions.labels(self.priorities.alias_of(digest)).inc()

    async def _load(self, adapter: Adapter) -> None:
        """Load the adapter for all requests that wait for it. If that fails, all of them get the error."""
        self._slots.closing = None
        self._loading = adapter.digest
        try:
            await self._load_counted(adapter)
        except Exception as error:
            if isinstance(error, NoSlotError) and not self._slots.free:
                return  # something else took the slot meanwhile
            self._fail([one for one in self._line if adapter.digest in one.adapters], error)
        else:
            self._slots.touch(adapter.digest)
        finally:
            self._loading = None

    def _fail(self, tickets: Iterable[SlotTicket], error: Exception) -> None:
        for ticket in tickets:
            if ticket in self._line:
                self._line.remove(ticket)
                self._let_go(ticket)
                ticket.done.set_exception(error)
                ticket.done.exception()  # seen, even if who waited has gone

    async def _has_lost_its_name(self, adapter: Adapter, error: AdapterRefusedError) -> bool:
        """True if the refused adapter is no longer served. Reports the adapter to `on_damage` or `on_refusal`
        first.
        """
        if isinstance(error, NoSlotError):
            return False
        if isinstance(error, AdapterUnavailableError):
            if self.on_damage is not None:
                self.on_damage(adapter, str(error))
            return False
        held = adapter.digest in self._accepted
        return not held and self.on_refusal is not None and await self.on_refusal(adapter)

    async def _load_counted(self, adapter: Adapter) -> None:
        started = time.perf_counter()
        outcome = "failed"
        kept = self._engine.state().resident.get(adapter.digest) == "host"
        with self._metrics.using(adapter):
            try:
                await self._engine.load(adapter)
                outcome = "ok"
                self._accepted.add(adapter.digest)
            except AdapterRefusedError as error:
                outcome = "refused"
                log.warning(
                    "the engine refused to load an adapter, so requests for it fail (its name and the reason "
                    "follow): %s",
                    error,
                )  # its message begins with the name
                if await self._has_lost_its_name(adapter, error):
                    raise AdapterUnknownError(str(error)) from error
                raise
            except EngineDeadError:
                outcome = "engine_dead"
                raise
            except asyncio.CancelledError:
                outcome = "cancelled"
                raise
            finally:
                seconds, base = time.perf_counter() - started, self.priorities.served.base_name
                self._metrics.record_load(adapter, outcome, seconds, base, "activate" if kept else "load")
