"""A whole server in this process: real uvicorn, real engine, tiny random base."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from routing.detect import ProfileDetector
from routing.route import Router
from routing.settings import LanguageRow, RoutingSettings
from server.asgi.app import create_app, uvicorn_config
from server.config.settings import Settings
from server.engines import kinds
from server.engines.base import Engine
from server.live.follow_options import FollowOptions
from server.live.runtime import Runtime
from server.metrics.metrics import Metrics
from server.serving.one_thread import OneThread
from server.serving.service import open_service
from server.telemetry.observer import RequestObserver
from server.text.tokenizer import Tokenizer
from tests.server.engines.making import BASE_DIGEST, ENGINES, EngineLimits

BASE = "tiny"
EN, SV = "oneseek-7b-zero", "oneseek-7b-zero-sv"
CONTEXT = 256
METRICS_KEY = "for-prometheus"
"""Opens /metrics on a server that has it among its settings."""


@dataclass(frozen=True)
class Made:
    """An application, and the engine in it that has not started."""

    app: Starlette
    engine: Engine
    served: ServedAdapters


@dataclass(frozen=True)
class Serving:
    """A running server."""

    url: str
    http: httpx.Client
    server: uvicorn.Server
    loop: asyncio.AbstractEventLoop
    engine: Engine
    served: ServedAdapters
    adapters: Mapping[str, Adapter]
    settings: Settings
    late: list[str] = field(default_factory=list[str])
    """Scrapes of /metrics that the server gave up."""

    def close_engine(self) -> None:
        """End the engine under the server's feet."""
        asyncio.run_coroutine_threadsafe(self.engine.close(), self.loop).result(30)

    def counts(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels, as scraped. Scrapes that took longer than a short
        `request_timeout` do not count as requests that did.
        """
        key = {"Authorization": f"Bearer {METRICS_KEY}"} if METRICS_KEY in self.settings.metrics_keys else {}
        answer, tries = self.http.get("/metrics", headers=key), 1
        while answer.status_code == 504 and tries < 20:  # a busy server and a short `request_timeout`
            self.late.append(answer.text)
            answer, tries = self.http.get("/metrics", headers=key), tries + 1
        lines = answer.raise_for_status().text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        samples = {name: float(value) for name, value in pairs}
        for name in ('oneseek_cancelled_total{reason="timeout"}', 'oneseek_rejected_total{reason="timeout"}'):
            if name in samples:
                samples[name] -= len(self.late)
        return samples


def make_app(
    base: Path,
    adapters: Mapping[str, Adapter],
    graphs: Path,
    settings: Settings,
    *,
    kv_tokens: int = 48 * CONTEXT,
    engine: str = "embedded",
    observers: Sequence[RequestObserver] = (),
) -> Made:
    """The application around a real engine, by its name in `tests.server.engines.making.ENGINES`."""
    tokenizer = Tokenizer.load(base)
    metrics = Metrics()
    limits = EngineLimits(
        max_num_seqs=settings.max_num_seqs or 8, max_queue=settings.max_queue, kv_tokens=kv_tokens
    )
    routing = RoutingSettings(languages=(LanguageRow("en", EN), LanguageRow("sv", SV)))
    made = ENGINES[engine](base, graphs, tuple(adapters.values()), limits, metrics.steps(BASE))
    served = ServedAdapters(adapters.values(), base_digest=BASE_DIGEST, base_name=BASE)
    router = Router(routing, ProfileDetector(routing))
    app = one_base_app(settings, made, served, router, tokenizer, BASE, metrics, observers=observers)
    return Made(app, made, served)


def one_base_app(
    settings: Settings,
    engine: Engine,
    served: ServedAdapters,
    router: Router,
    tokenizer: Tokenizer,
    name: str,
    metrics: Metrics,
    follow: FollowOptions | None = None,
    observers: Sequence[RequestObserver] = (),
) -> Starlette:
    """The application of a server with one base."""
    runtime = Runtime(
        name=name, engine=engine, served=served, router=router, tokenizer=tokenizer, metrics=metrics
    )
    kind = kinds.ENGINES.get(engine.info.name)
    collectors = kind.collectors() if kind is not None else ()
    aside = OneThread()
    service = open_service(settings, runtime, aside, follow=follow, collectors=collectors)
    return create_app(settings, [service], metrics, aside, observers=observers)


@contextmanager
def served(made: Made, settings: Settings, adapters: Mapping[str, Adapter]) -> Generator[Serving]:
    """The application behind real uvicorn on a free port of the loopback."""
    config = uvicorn_config(made.app, settings)
    server = uvicorn.Server(config)
    runner = asyncio.Runner(loop_factory=config.get_loop_factory())
    loop = runner.get_loop()

    def run() -> None:
        with runner:
            runner.run(server.serve())

    thread = threading.Thread(target=run)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=60) as client:
            yield Serving(url, client, server, loop, made.engine, made.served, adapters, settings)
    finally:
        server.should_exit = True
        thread.join(30)


def lengths_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the texts that are tokenised from now on, in characters."""
    lengths, name = list[int](), "_ids"
    work = getattr(Tokenizer, name)

    def read(self: Tokenizer, text: str, add_special_tokens: bool = False) -> list[int]:
        lengths.append(len(text))
        return work(self, text, add_special_tokens)

    monkeypatch.setattr(Tokenizer, name, read)
    return lengths


def eventually(check: Callable[[], bool], seconds: float = 30.0) -> bool:
    """True if `check` holds within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.02)
    return False
