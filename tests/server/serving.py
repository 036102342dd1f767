"""A whole server in this process: real uvicorn, real engine, tiny random base."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from adapters.registry import Registry
from starlette.applications import Starlette

from adapters.manifest import Adapter
from routing.detect import ProfileDetector
from routing.route import Router
from routing.settings import LanguageRow, RoutingSettings
from server.app import create_app, uvicorn_config
from server.engines.embedded.launch import EmbeddedOptions, embedded_engine
from server.metrics import Metrics
from server.settings import Settings
from server.tokens import Tokenizer

BASE_DIGEST = "sha256:" + "b" * 64
BASE = "tiny"
EN, SV = "oneseek-7b-zero", "oneseek-7b-zero-sv"
CONTEXT = 256


@dataclass(frozen=True)
class Serving:
    """A running server."""

    url: str
    app: Starlette
    adapters: Mapping[str, Adapter]

    def counts(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels, as scraped."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}


def make_app(
    base: Path,
    adapters: Mapping[str, Adapter],
    graphs: Path,
    settings: Settings,
    *,
    kv_tokens: int = 48 * CONTEXT,
) -> Starlette:
    """The application around a real engine that has not started."""
    tokenizer = Tokenizer.load(base)
    metrics = Metrics(BASE)
    options = EmbeddedOptions(
        graphs=graphs,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=64,
        max_queue=settings.max_queue,
        kv_tokens=kv_tokens,
        threads=1,
    )
    routing = RoutingSettings(languages=(LanguageRow("en", EN), LanguageRow("sv", SV)))
    return create_app(
        settings,
        embedded_engine(base, BASE_DIGEST, tokenizer, options, observer=metrics),
        Registry(adapters.values(), base_digest=BASE_DIGEST, base_name=BASE),
        Router(routing, ProfileDetector(routing)),
        tokenizer,
        BASE,
        metrics,
    )


@contextmanager
def served(app: Starlette, settings: Settings, adapters: Mapping[str, Adapter]) -> Generator[Serving]:
    """`app` behind real uvicorn on a free port of the loopback."""
    server = uvicorn.Server(uvicorn_config(app, settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Serving(f"http://127.0.0.1:{port}", app, adapters)
    finally:
        server.should_exit = True
        thread.join(30)
