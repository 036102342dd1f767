"""An engine of slots alone: its residents are the real ones, and a test decides when a load ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from server.engines.shared.places import Places
from server.engines.shared.residents import Residents
from server.errors import AdapterNotLoadedError, EngineError, UnsupportedRequestError
from server.live.slots.priorities import Priorities
from server.live.slots.residency import Residency
from server.metrics.engine_state import EngineInfo, EngineState
from server.metrics.metrics import Metrics
from server.request import Delta, EmbeddingRequest, GenerationRequest

BASE = "sha256:" + "0" * 64


def named(name: str, language: str | None = None) -> Adapter:
    """An adapter without files."""
    return Adapter(
        alias=name, version="v1", digest=f"sha256:{name}", path=Path(name), rank=4, alpha=8.0,
        targets=("q_proj",), language=language,
    )  # fmt: skip


class SlotEngine:
    """Loads take no time while `gate` is set."""

    def __init__(self, slots: int) -> None:
        self.info = EngineInfo(
            name="slots", base_digest=BASE, context=64, vocabulary=64, blends=True, max_adapters=slots
        )
        self.places = Places(at_once=8, queue=8, withdraw=lambda stream, error: None)
        self.residents = Residents(slots, self._bring_in, self._drop)
        self.gate = asyncio.Event()
        self.gate.set()
        self.loads: list[str] = []
        self.dropped: list[str] = []
        self.fault: EngineError | None = None
        self.loading = self.most_loading = 0

    async def start(self) -> None: ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        raise UnsupportedRequestError("this engine has slots alone", "model")

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        raise UnsupportedRequestError("this engine has slots alone", "model")

    async def load(self, adapter: Adapter) -> None:
        await self.residents.load(adapter)

    async def unload(self, digest: str, *, keep: bool = False) -> None:
        await self.residents.unload(digest)

    def state(self) -> EngineState:
        return EngineState(alive=True, progress=0.0, resident=dict.fromkeys(self.residents.open, "device"))

    def fail(self, reason: str) -> None: ...

    async def close(self) -> None: ...

    async def _bring_in(self, adapter: Adapter) -> None:
        self.loads.append(adapter.alias)
        self.loading += 1
        self.most_loading = max(self.most_loading, self.loading)
        try:
            await self.gate.wait()
        finally:
            self.loading -= 1
        if self.fault is not None:
            raise self.fault

    def _drop(self, digest: str) -> asyncio.Future[None]:
        assert not self.residents.in_use(digest), "it left under a request"
        self.dropped.append(digest.removeprefix("sha256:"))
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class House:
    """An engine of slots, and what decides over them."""

    def __init__(
        self, slots: int, names: str, *, pinned: tuple[str, ...] = (), configured: tuple[str, ...] = ()
    ) -> None:
        self.adapters = {name: named(name) for name in names}
        self.engine = SlotEngine(slots)
        self.metrics = Metrics()
        self.served = ServedAdapters(self.adapters.values(), base_digest=BASE)
        priorities = Priorities(self.served, pinned, tuple(f"{name}@v1" for name in configured))
        self.residency = Residency(self.engine, self.metrics, priorities)

    @property
    def here(self) -> set[str]:
        """The names of what is resident."""
        return {digest.removeprefix("sha256:") for digest in self.engine.residents.open}

    def some(self, names: str) -> list[Adapter]:
        """Adapters by their names of one letter."""
        return [self.adapters[name] for name in names]

    def value(self, metric: str, **labels: str) -> float:
        """A sample of the metrics; 0 if there is none."""
        return self.metrics.registry.get_sample_value(metric, labels) or 0.0


class Asking:
    """A request for adapters: it waits, runs until `finish`, and ends."""

    def __init__(self, house: House, names: str) -> None:
        self.names = names
        self.running = False
        self._house = house
        self._finish = asyncio.Event()
        self.task = asyncio.ensure_future(self._run())

    def finish(self) -> None:
        """Its answer ends."""
        self._finish.set()

    async def _run(self) -> None:
        house = self._house
        mix = tuple((adapter.digest, 1.0) for adapter in house.some(self.names))
        while not self.running:
            lease = await house.residency.acquire(house.some(self.names))
            try:
                house.engine.residents.take(mix)
                self.running = True
            except AdapterNotLoadedError:  # unloaded from outside since; the server asks again too
                pass
            finally:
                lease.close()
        try:
            await self._finish.wait()
        finally:
            self.running = False
            house.engine.residents.give_back(mix)


async def turns(count: int = 30) -> None:
    """Let the event loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def ran(house: House, names: str) -> None:
    """A request that comes and goes."""
    asking = Asking(house, names)
    asking.finish()
    await asyncio.wait_for(asking.task, 5)
