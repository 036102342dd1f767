"""Which adapters are resident in the engine: loaded when asked for, evicted least recently used.

A request whose adapters are all there gets them at once. Any other waits in one line, first come first
served, and one adapter is loaded at a time, for all who wait for it. An adapter is never evicted while a
request needs it; if all slots are in use for `CLOSE_AFTER`, one of them is given to no new request, so that
neither hot nor cold adapters starve. Every wait ends after `PATIENCE`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from adapters.lora.manifest import Adapter
from server.engines.base import Engine
from server.errors import (
    AdapterNotLoadedError,
    AdapterRefusedError,
    AdaptersBusyError,
    AdapterUnavailableError,
    EngineDeadError,
    EngineError,
    UnsupportedRequestError,
)
from server.live.slots.leases import Lease, SlotTicket
from server.live.slots.priorities import Priorities
from server.live.slots.slots import Slots
from server.metrics.metrics import Metrics

PATIENCE = 30.0
"""Seconds that a request waits for an adapter."""
CLOSE_AFTER = 1.0
"""Seconds that the first in line waits for an idle slot, before one in use takes no new requests."""
LOOK_SECONDS = 0.01
"""Between two looks at whether the engine has finished with an adapter."""

log = logging.getLogger("oneseek.residency")


class Residency:
    """The adapters of one engine. Used on the event loop alone."""

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
        """Called for an adapter whose files turn out not to be what was accepted, with the reason."""

    async def load_first(self) -> None:
        """Load what goes first, as far as the slots reach; what the engine refuses is logged by name."""
        await self.load_all(self.priorities.first(self._slots.count))

    async def load_all(self, adapters: Iterable[Adapter]) -> None:
        """Make `adapters` resident, one after the other; what the engine refuses is logged by name."""
        for adapter in adapters:
            with suppress(AdapterNotLoadedError, AdapterRefusedError):
                await self.ensure(adapter)

    async def ensure(self, adapter: Adapter) -> None:
        """Return once `adapter` is resident. It may be evicted again. Raises as `acquire` does."""
        await self._have({adapter.digest: adapter}, keeps=False)

    async def acquire(self, adapters: Sequence[Adapter]) -> Lease:
        """Return once all of `adapters` are resident; they stay until the lease is closed.

        Raises `AdapterUnavailableError` if one has a `problem`, `AdapterRefusedError` if the engine refuses
        it, `AdaptersBusyError` if no slot came free within `PATIENCE`, `AdapterNotLoadedError` if its load
        takes longer (it goes on), and `UnsupportedRequestError` for more adapters than there are slots.
        """
        began = time.monotonic()
        wanted = {adapter.digest: adapter for adapter in adapters}
        there = await self._have(wanted, keeps=True)
        return Lease(list(wanted), self._give_back, 0.0 if there else time.monotonic() - began)

    def check_spare(self, adapter: Adapter) -> None:
        """Raise `AdaptersBusyError` if keeping `adapter` would leave no slot to the others."""
        if not self._slots.spare(adapter.digest):
            raise AdaptersBusyError(
                f"the {self._slots.count} slots are taken by pinned adapters and versions on trial: raise "
                f"max_adapters to have {adapter.full_name} as well"
            )

    def unload_later(self, adapter: Adapter) -> None:
        """Have the engine drop it once no request uses it."""

        async def unload() -> None:
            with suppress(EngineError):
                await self._engine.unload(adapter.digest)

        task = asyncio.create_task(unload())
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)

    def close(self) -> None:
        """Wait for nothing that is yet to be loaded or dropped."""
        for task in (*self._unloading, *filter(None, [self._worker])):
            task.cancel()

    async def _have(self, wanted: Mapping[str, Adapter], *, keeps: bool) -> bool:
        """Return once all are there, each held once if it `keeps` them; False if that took a wait."""
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
        """Raise for what no waiting brings about."""
        if not self._slots.count:
            raise AdapterRefusedError("this engine was started without room for adapters")
        most = self._slots.most_with(digests)
        if len(digests) > most:
            raise UnsupportedRequestError(
                f"A blend of {len(digests)} adapters needs as many slots, and it can have {most} here: the "
                "server's max_adapters, without the slots of other pinned adapters.",
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
            raise AdapterNotLoadedError(f"adapter {names} is not loaded yet")
        raise AdaptersBusyError(
            f"All {self._slots.count} slots for adapters are in use, and none came free for {names} within "
            f"{PATIENCE:g} seconds."
        )

    def _leave(self, ticket: SlotTicket) -> None:
        """Its wait has ended without success, or its client has gone."""
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
        """Serve the line until it is empty."""
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
            log.exception("adapters could not be brought in")
            self._fail(list(self._line), EngineError("the engine failed at bringing in an adapter"))
        finally:
            self._slots.closing = None
            for ticket in self._line:  # cancelled: nobody serves them any more
                self._let_go(ticket)
                ticket.done.cancel()
            self._line = []

    def _grant(self) -> None:
        """Let everyone go whose adapters are all there."""
        for ticket in [one for one in self._line if all(map(self._slots.available, one.adapters))]:
            self._line.remove(ticket)
            if ticket.keeps:
                for digest in ticket.adapters:
                    self._slots.take(digest)
            self._let_go(ticket)
            ticket.done.set_result(None)

    def _next(self) -> SlotTicket | None:
        """The first in line for whom something can be done: what is being unloaded has to go first."""
        for ticket in self._line:
            if not any(map(self._slots.leaving, ticket.adapters)):
                return ticket
        return None

    async def _advance(self, ticket: SlotTicket) -> bool:
        """One step for a ticket: a load, or an eviction. False if it has to wait for a slot."""
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
        """Keep what is there already for this ticket, and for no other in line: none waits for another."""
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
        """Load it for everyone who waits for it; they get its error if that fails."""
        self._slots.closing = None
        self._loading = adapter.digest
        try:
            await self._load_counted(adapter)
        except Exception as error:
            if isinstance(error, AdapterRefusedError) and not self._slots.free:
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

    async def _load_counted(self, adapter: Adapter) -> None:
        started = time.perf_counter()
        outcome = "failed"
        with self._metrics.using(adapter):
            try:
                await self._engine.load(adapter)
                outcome = "ok"
            except AdapterRefusedError as error:
                outcome = "refused"
                log.warning("adapter %s is not served: %s", adapter.full_name, error)
                if isinstance(error, AdapterUnavailableError) and self.on_damage is not None:
                    self.on_damage(adapter, str(error))
                raise
            except EngineDeadError:
                outcome = "engine_dead"
                raise
            except asyncio.CancelledError:
                outcome = "cancelled"
                raise
            finally:
                self._metrics.record_load(adapter.alias, outcome, time.perf_counter() - started)
