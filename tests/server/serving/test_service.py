"""Two bases in one server: everything outside a runtime works for any number of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from routing.detect import ProfileDetector
from routing.route import Router
from routing.settings import RoutingSettings
from server.asgi.app import create_app
from server.config.settings import Settings
from server.engines.embedded.launch.launch import embedded_engine
from server.engines.embedded.launch.options import EmbeddedOptions
from server.live.runtime import Runtime
from server.metrics.metrics import Metrics
from server.serving.one_thread import OneThread
from server.serving.service import BaseService, open_service
from server.text.tokenizer import Tokenizer
from tests.server.http_server import BASE_DIGEST, Made, Serving, served

SETTINGS = Settings(port=0, log_level="warning", drain_seconds=1)


def service(
    name: str,
    base: Path,
    graphs: Path,
    adapters: Mapping[str, Adapter],
    metrics: Metrics,
    aside: OneThread,
) -> BaseService:
    tokenizer, routing = Tokenizer.load(base), RoutingSettings()
    options = EmbeddedOptions(graphs=graphs, max_num_seqs=4, kv_tokens=1024, threads=1)
    runtime = Runtime(
        name=name,
        engine=embedded_engine(base, BASE_DIGEST, tokenizer, options, observer=metrics.steps(name)),
        served=ServedAdapters(adapters.values(), base_digest=BASE_DIGEST, base_name=name),
        router=Router(routing, ProfileDetector(routing)),
        tokenizer=tokenizer,
        metrics=metrics,
    )
    return open_service(SETTINGS, runtime, aside)


@pytest.fixture(scope="module")
def two(tiny_base: Path, graphs: Path, voices: Mapping[str, Adapter]) -> Iterator[Serving]:
    metrics, aside = Metrics(), OneThread()
    services = [
        service("first", tiny_base, graphs, {"sv": voices["sv"]}, metrics, aside),
        service("second", tiny_base, graphs, {"en": voices["en"]}, metrics, aside),
    ]
    runtime = services[0].runtime
    made = Made(create_app(SETTINGS, services, metrics, aside), runtime.engine, runtime.served)
    with served(made, SETTINGS, {}) as serving:
        yield serving


def ask(http: httpx.Client, model: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hej!"}], "max_tokens": 3}
    return http.post("/v1/chat/completions", json=body, headers=dict(headers or {}))


def test_every_base_and_its_adapters_are_listed(two: Serving, voices: Mapping[str, Adapter]) -> None:
    parents = {entry["id"]: entry["parent"] for entry in two.http.get("/v1/models").json()["data"]}
    assert parents["first"] is parents["second"] is None
    assert parents[voices["sv"].alias] == "first"
    assert parents[voices["en"].alias] == "second"


def test_a_name_leads_to_the_base_that_knows_it(two: Serving, voices: Mapping[str, Adapter]) -> None:
    for name, digest in (
        ("first", "none"),
        ("second", "none"),
        (voices["sv"].alias, voices["sv"].digest),
        (voices["en"].alias, voices["en"].digest),
    ):
        answer = ask(two.http, name)
        assert answer.status_code == 200, answer.text
        assert answer.headers["X-OneSeek-Adapter-Digest"] == digest
    headed = ask(two.http, "oneseek", {"X-OneSeek-Adapter": voices["en"].alias})
    assert headed.headers["X-OneSeek-Adapter-Digest"] == voices["en"].digest
    assert ask(two.http, "third").status_code == 404


def test_each_base_is_measured_under_its_name_and_each_metric_is_exported_once(two: Serving) -> None:
    assert ask(two.http, "first").status_code == ask(two.http, "second").status_code == 200
    text = two.http.get("/metrics").text
    heads = [line for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(heads) == len(set(heads))
    for base in ("first", "second"):
        assert f'oneseek_requests_running{{adapter="base",base="{base}"}}' in text
        assert f'oneseek_step_seconds_count{{base="{base}"}}' in text
    assert two.http.get("/ready").status_code == 200


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_server_without_one_of_its_engines_is_not_ready(
    name: str, tiny_base: Path, graphs: Path, voices: Mapping[str, Adapter]
) -> None:
    metrics, aside = Metrics(), OneThread()
    services = [service(base, tiny_base, graphs, voices, metrics, aside) for base in ("first", "second")]
    runtime = services[0].runtime
    made = Made(create_app(SETTINGS, services, metrics, aside), runtime.engine, runtime.served)
    with served(made, SETTINGS, {}) as serving:
        (dead,) = (one.runtime.engine for one in services if one.runtime.name == name)
        asyncio.run_coroutine_threadsafe(dead.close(), serving.loop).result(30)
        assert serving.http.get("/ready").status_code == 503


def test_large_requests_of_all_bases_are_worked_on_one_at_a_time(
    two: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads of pure Python would take the interpreter from the event loop together."""
    work, lock, now, most = Tokenizer.chat, threading.Lock(), 0, 0

    def watched(*given: Any, **named: Any) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        try:
            return work(*given, **named)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(Tokenizer, "chat", watched)
    long = [{"role": "user", "content": "Hej! " * 250}]

    def post(model: str) -> int:
        return httpx.post(
            f"{two.url}/v1/chat/completions", json={"model": model, "messages": long}, timeout=60
        ).status_code

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(post, ["first", "second"] * 2))
    assert most == 1
