"""A server of the mini base with two versions of one adapter, and an engine that can be made bad."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import numpy as np
from safetensors.numpy import load_file, save_file

from adapters.bases import SHIPPED, find_base
from adapters.ledger import Ledger
from adapters.lora.manifest import Adapter
from adapters.registry.registry import Base, Registry
from server.config.settings import RolloutOptions, RoutingOptions, Settings
from server.engines.base import Engine, OpenAdapters, QueuePlaces
from server.engines.embedded.launch.launch import embedded_engine
from server.engines.embedded.launch.options import EmbeddedOptions
from server.errors import AdapterRefusedError, EngineError
from server.live.catalogue import open_catalogue
from server.live.follow_options import FollowOptions
from server.metrics.engine_state import EngineInfo, EngineState
from server.metrics.metrics import Metrics
from server.request import Delta, EmbeddingRequest, GenerationRequest
from server.text.tokenizer import Tokenizer
from tests.server.http_server import Made, Serving, one_base_app, served

ALIAS = "zero-sv"
OLD, NEW = f"{ALIAS}@v1.1", f"{ALIAS}@v1.2"


def scaled(folder: Path, factor: float) -> Path:
    """The shipped Swedish adapter with one matrix multiplied, in a folder of its own."""
    folder.mkdir(parents=True)
    shipped = SHIPPED / "oneseek-mini-sv"
    config = json.loads((shipped / "adapter_config.json").read_text(encoding="utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = load_file(shipped / "adapter_model.safetensors")
    name = next(name for name in sorted(tensors) if "lora_B" in name)
    tensors[name] = (tensors[name].astype(np.float32) * factor).astype(tensors[name].dtype)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def fill(home: Path, scratch: Path) -> Registry:
    """The registry of `home` with v1.1, which is active, and v1.2 of the alias."""
    registry = Registry(home, Ledger.open(home / "ledger"))
    base = Base.read(find_base(scratch), home / "cache")
    for version, factor in (("v1.1", 1.0), ("v1.2", 0.5)):
        registry.add(
            scaled(scratch / version, factor), base=base, alias=ALIAS, version=version, language="sv"
        )
    return registry


@dataclass
class Bad:
    """An engine that does what it is told to, and passes on what it is not."""

    engine: Engine
    refused: set[str] = field(default_factory=set[str])
    """Digests that it does not load."""
    broken: set[str] = field(default_factory=set[str])
    """Digests whose generations fail."""
    slow: dict[str, float] = field(default_factory=dict[str, float])
    """Digest → seconds before each delta."""
    loads: list[str] = field(default_factory=list[str])
    requests: list[GenerationRequest] = field(default_factory=list[GenerationRequest])

    @property
    def info(self) -> EngineInfo:
        return self.engine.info

    @property
    def residents(self) -> OpenAdapters:
        return self.engine.residents

    @property
    def places(self) -> QueuePlaces:
        return self.engine.places

    async def start(self) -> None:
        await self.engine.start()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        self.requests.append(request)
        if request.share in self.broken:
            raise EngineError("broken on purpose")
        async with aclosing(self.engine.generate(request)) as deltas:
            async for delta in deltas:
                await asyncio.sleep(self.slow.get(request.share, 0.0))
                yield delta

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        return await self.engine.embed(request)

    async def load(self, adapter: Adapter) -> None:
        self.loads.append(adapter.full_name)
        if adapter.digest in self.refused:
            raise AdapterRefusedError(f"{adapter.full_name} is refused on purpose")
        await self.engine.load(adapter)

    async def unload(self, digest: str, *, keep: bool = False) -> None:
        await self.engine.unload(digest)

    def state(self) -> EngineState:
        return self.engine.state()

    def fail(self, reason: str) -> None:
        self.engine.fail(reason)

    async def close(self) -> None:
        await self.engine.close()


@dataclass
class Rolling:
    """A running server, its registry on disk, and its engine."""

    serving: Serving
    registry: Registry
    bad: Bad
    home: Path

    def digest(self, name: str) -> str:
        return self.serving.served.resolve(name).digest

    def unload(self, name: str) -> None:
        """Have the engine drop a version under the server's feet."""
        work = self.bad.unload(self.digest(name))
        asyncio.run_coroutine_threadsafe(work, self.serving.loop).result(30)

    def splits(self) -> dict[str, object]:
        return dict(self.serving.served.snapshot.splits)


@contextmanager
def rolling(
    home: Path,
    scratch: Path,
    graphs: Path,
    registry: Registry,
    options: RolloutOptions,
    seqs: int = 8,
    queue: int = 64,
) -> Generator[Rolling]:
    """A server that follows `home`."""
    settings = Settings(
        home=home,
        port=0,
        log_level="warning",
        drain_seconds=2,
        max_num_seqs=seqs,
        rollout=options,
        routing=RoutingOptions(languages={"sv": ALIAS}),
    )
    catalogue = open_catalogue(settings, scratch)
    tokenizer, metrics = Tokenizer.load(catalogue.base.path), Metrics()
    steps = metrics.steps("tiny")
    limits = EmbeddedOptions(
        graphs=graphs,
        max_num_seqs=seqs,
        max_num_batched_tokens=128,
        max_queue=queue,
        kv_tokens=8192,
        threads=1,
    )
    adapters = catalogue.served
    engine = Bad(
        embedded_engine(catalogue.base.path, adapters.base_digest, tokenizer, limits, observer=steps)
    )
    follow = FollowOptions(
        home=home,
        base=catalogue.base,
        seconds=0.05,
        provenance=None,
        router=catalogue.make_router,
    )
    app = one_base_app(
        settings, engine, adapters, catalogue.router, tokenizer, "mini", metrics, follow=follow
    )
    with served(Made(app, engine, adapters), settings, {}) as serving:
        yield Rolling(serving, registry, engine, home)


def until(holds: Callable[[], object], seconds: float = 20) -> None:
    end = monotonic() + seconds
    while not holds():
        assert monotonic() < end
        sleep(0.02)
