"""What clients, probes and dashboards see of an engine that dies or hangs, and of the one that follows it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from adapters.lora.manifest import Adapter, read_manifest
from adapters.registry.served import ServedAdapters
from routing.detect import ProfileDetector
from routing.route import Router
from routing.settings import RoutingSettings
from server.config.settings import Settings
from server.engines.embedded.model.cache import prepare
from server.engines.supervised import SupervisedEngine
from server.metrics.metrics import Metrics
from server.text.tokenizer import Tokenizer
from tests.server.engines.faulty import Machine, raise_in_step
from tests.server.engines.making import BASE_DIGEST
from tests.server.http_server import BASE, Made, Serving, one_base_app, served

SETTINGS = Settings()


@pytest.fixture(scope="module")
def adapters(tiny_adapters: dict[str, Path]) -> dict[str, Adapter]:
    return {name: read_manifest(folder) for name, folder in tiny_adapters.items()}


@pytest.fixture
def machine(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tiny_base, prepare(tiny_base, tmp_path_factory.mktemp("graphs"), BASE_DIGEST))


@pytest.fixture
def serving(machine: Machine, tiny_base: Path, adapters: dict[str, Adapter]) -> Iterator[Serving]:
    metrics, routing = Metrics(), RoutingSettings()
    engine = SupervisedEngine(machine.open(), machine.open, metrics.steps(BASE), restarts=3, step_timeout=1.0)
    names = ServedAdapters(adapters.values(), base_digest=BASE_DIGEST, base_name=BASE)
    router, tokenizer = Router(routing, ProfileDetector(routing)), Tokenizer.load(tiny_base)
    app = one_base_app(SETTINGS, engine, names, router, tokenizer, BASE, metrics)
    with served(Made(app, engine, names), SETTINGS, adapters) as serving:
        yield serving
        machine.let_go.set()


def last_events(serving: Serving, model: str) -> list[str]:
    """The last two events of a long streamed answer, or the error that came in its place."""
    body = {"model": model, "prompt": [1, 5, 9], "max_tokens": 200, "ignore_eos": True, "stream": True}
    with serving.http.stream("POST", "/v1/completions", json=body) as reply:
        if reply.status_code != 200:
            return [reply.read().decode(), "[DONE]"]
        return [line.removeprefix("data: ") for line in reply.iter_lines() if line.startswith("data: ")][-2:]


@pytest.mark.parametrize("fault", ["died", "stalled"])
def test_clients_are_told_and_the_next_engine_answers(
    serving: Serving, machine: Machine, adapters: dict[str, Adapter], fault: str
) -> None:
    names = [adapter.full_name for adapter in adapters.values()]
    machine.faults.append(raise_in_step if fault == "died" else machine.hang)
    with ThreadPoolExecutor(4) as pool:
        for error, done in pool.map(partial(last_events, serving), names * 2):
            assert json.loads(error)["error"]["code"] == "engine_dead"
            assert done == "[DONE]"
    end = time.monotonic() + 30
    while serving.http.get("/ready").status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.02)
    for name in names:
        answer = serving.http.post("/v1/completions", json={"model": name, "prompt": [1], "max_tokens": 2})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-oneseek-adapter"] == name
    counts = serving.counts()
    assert counts[f'oneseek_engine_failures_total{{base="{BASE}",reason="{fault}"}}'] == 1
    assert counts[f'oneseek_engine_restarts_total{{base="{BASE}",outcome="ok"}}'] == 1
