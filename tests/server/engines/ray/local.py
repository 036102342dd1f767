"""Replicas in this process, reached without Ray, so that one can be lost at any moment."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from server.asgi.ray.host import EngineHost
from server.engines.base import Engine
from server.engines.ray.calls import (
    Description,
    EngineCall,
    ReplicaCall,
    ReplicaLostError,
    ReplicaStatus,
    SentFailure,
)
from server.engines.ray.engine import RemoteEngine
from server.live.slots.priorities import Priorities
from server.live.slots.residency import Residency
from server.metrics.metrics import Metrics

CallT = TypeVar("CallT")


def make_host(name: str, engine: Engine, at_once: int, adapters: Sequence[Adapter] = ()) -> EngineHost:
    """A host of `engine` that loads nothing by itself unless `adapters` says so."""
    served = ServedAdapters(adapters, base_digest=engine.info.base_digest)
    return EngineHost(name, engine, Residency(engine, Metrics(), Priorities(served)), at_once)


class LocalReplicas:
    """Hosts by id, reached through pickles as they are over Ray."""

    def __init__(self, open_host: Callable[[str], EngineHost], count: int) -> None:
        self._open = open_host
        self.hosts = {f"r{number}": open_host(f"r{number}") for number in range(count)}
        self.running: set[str] = set()
        self.taken: list[tuple[str, EngineCall]] = []
        """Every generation that a replica was given."""
        self._lost: dict[str, asyncio.Event] = {}

    async def start(self) -> None:
        """Start every host."""
        for name in self.hosts:
            await self.begin(name)

    async def begin(self, name: str) -> None:
        """Start one host."""
        host = self.hosts.get(name) or self._open(name)
        await host.start()
        self.hosts[name] = host
        self._lost[name] = asyncio.Event()
        self.running.add(name)

    async def lose(self, name: str) -> None:
        """End a replica as a kill does: nothing that it was asked is answered any more."""
        self.running.discard(name)
        self._lost[name].set()
        await self.hosts.pop(name).close()

    async def close(self) -> None:
        """End every host."""
        for host in self.hosts.values():
            await host.close()

    @property
    def known(self) -> frozenset[str]:
        """See `Replicas.known`."""
        return frozenset(self.running)

    def describe(self) -> Description:
        """See `ReplicaHost.describe`."""
        return next(iter(self.hosts.values())).describe()

    async def stream(self, call: EngineCall) -> AsyncGenerator[bytes, None]:
        """See `Replicas.stream`."""
        name = next((name for name in call.ranked if name in self.running), None)
        if name is None:
            name = next(iter(sorted(self.running)), None)
        if name is None:
            raise ReplicaLostError("no replica is there")
        lost = self._lost[name]
        self.taken.append((name, call))
        async with aclosing(self.hosts[name].stream(_copied(call))) as frames:
            while True:
                frame = asyncio.ensure_future(anext(frames))
                gone = asyncio.ensure_future(lost.wait())
                try:
                    await asyncio.wait({frame, gone}, return_when=asyncio.FIRST_COMPLETED)
                    if lost.is_set():
                        raise ReplicaLostError("killed")
                    try:
                        data = frame.result()
                    except StopAsyncIteration:
                        return
                finally:
                    for task in (frame, gone):
                        task.cancel()
                    await asyncio.gather(frame, gone, return_exceptions=True)
                yield data

    async def embed(self, call: EngineCall) -> tuple[float, ...] | SentFailure:
        """See `Replicas.embed`."""
        return await self._host(call.ranked[0]).embed(_copied(call))

    async def status(self, call: ReplicaCall) -> ReplicaStatus:
        """See `Replicas.status`."""
        return _copied(self._host(call.replica).status())

    async def load(self, call: ReplicaCall) -> bool | SentFailure:
        """See `Replicas.load`."""
        return _copied(await self._host(call.replica).load(_copied(call)))

    async def unload(self, call: ReplicaCall) -> None:
        """See `Replicas.unload`."""
        await self._host(call.replica).unload(_copied(call))

    def _host(self, name: str) -> EngineHost:
        if name not in self.running:
            raise ReplicaLostError(f"{name} is gone")
        return self.hosts[name]


def _copied(value: CallT) -> CallT:
    return pickle.loads(pickle.dumps(value))


class LocalEngine(RemoteEngine):
    """The engine over replicas of this process, which start and end with it."""

    def __init__(self, replicas: LocalReplicas, max_queue: int) -> None:
        super().__init__(
            replicas, replicas.describe(), most_replicas=len(replicas.hosts), max_queue=max_queue
        )
        self.local = replicas

    async def start(self) -> None:
        """See `Engine.start`."""
        await self.local.start()
        await super().start()

    async def close(self) -> None:
        """See `Engine.close`."""
        await super().close()
        await self.local.close()
