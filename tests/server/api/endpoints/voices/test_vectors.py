"""Answers compared by the vectors of a second base: a real base that writes, and one that makes vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from routing.detect import ProfileDetector
from routing.route import Router
from routing.settings import LanguageRow, RoutingSettings
from server.asgi.app import create_app
from server.config.settings import Settings
from server.engines.base import Engine
from server.errors import EngineDeadError
from server.live.runtime import Runtime
from server.metrics.metrics import Metrics
from server.serving.one_thread import OneThread
from server.serving.service import BaseService, open_service
from server.text.tokenizer import Tokenizer
from tests.server.engines.making import BASE_DIGEST, ENGINES, EngineLimits
from tests.server.http_server import BASE, EN, SV, Made, Serving, eventually, served
from tests.server.vectors import TokenVectors

PATH = "/api/oqt/multi-model-query"
VECTORS = "vectors"
ASK: dict[str, Any] = {
    "question": "Vem är du?",
    "models": [BASE, EN, SV, f"{SV}@v1.0"],
    "max_tokens": 24,
    "temperature": 0,
    "ignore_eos": True,
}
SETTINGS = Settings(port=0, max_num_seqs=8, max_queue=64, log_level="critical", drain_seconds=1)


@pytest.fixture(scope="module")
def vectors(tiny_base: Path) -> TokenVectors:
    engine = TokenVectors(Tokenizer.load(tiny_base))
    engine.info = replace(engine.info, context=100)
    return engine


@pytest.fixture(scope="module")
def both(
    tiny_base: Path, voices: dict[str, Adapter], graphs: Path, vectors: TokenVectors
) -> Iterator[Serving]:
    """The base that embeds is the default one, which writes no text."""
    metrics, aside = Metrics(), OneThread()
    limits = EngineLimits(max_num_seqs=8, max_queue=64)
    adapters = tuple(voices.values())
    writing = ENGINES["embedded"](tiny_base, graphs, adapters, limits, metrics.steps(BASE))

    def service(name: str, engine: Engine, found: tuple[Adapter, ...]) -> BaseService:
        rows = (LanguageRow("en", EN), LanguageRow("sv", SV)) if found else ()
        routing = RoutingSettings(languages=rows)
        runtime = Runtime(
            name=name,
            engine=engine,
            served=ServedAdapters(found, base_digest=BASE_DIGEST, base_name=name),
            router=Router(routing, ProfileDetector(routing)),
            tokenizer=Tokenizer.load(tiny_base),
            metrics=metrics.of_base(name),
        )
        return open_service(SETTINGS, runtime, aside)

    services = [service(VECTORS, vectors, ()), service(BASE, writing, adapters)]
    app = create_app(SETTINGS, services, metrics, aside)
    with served(Made(app, writing, services[1].runtime.served), SETTINGS, voices) as serving:
        yield serving


@pytest.fixture(autouse=True)
def alive(vectors: TokenVectors) -> None:
    vectors.fails = None


def ask(serving: Serving, **fields: Any) -> dict[str, Any]:
    reply = serving.http.post(PATH, json=ASK | fields)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_the_agreement_is_the_cosine_of_the_vectors(both: Serving, vectors: TokenVectors) -> None:
    answer = ask(both)
    consensus, texts = answer["consensus"], [voice["text"] for voice in answer["voices"]]
    assert (consensus["measure"], consensus["base"], consensus["threshold"]) == ("cosine", VECTORS, 0.8)
    made = both.http.post("/v1/embeddings", json={"model": VECTORS, "input": texts}).json()["data"]
    found = np.asarray([one["embedding"] for one in made])
    cosines = {pair: float(max(0.0, found[pair[0]] @ found[pair[1]])) for pair in combinations(range(4), 2)}
    comparable = [pair for pair in consensus["pairs"] if pair["comparable"]]
    assert comparable
    for pair in comparable:
        assert pair["agreement"] == pytest.approx(cosines[tuple(pair["voices"])], abs=1e-4)
    assert eventually(lambda: not vectors.places.live), "its places are given back"


def test_a_stream_ends_with_the_same(both: Serving) -> None:
    whole = ask(both)["consensus"]
    reply = both.http.post(PATH, json=ASK | {"stream": True})
    last = reply.text.strip().split("\n\n")[-2]
    assert f'"measure":"{whole["measure"]}"' in last
    assert f'"agreement":{whole["agreement"]}' in last


def test_a_base_that_cannot_embed_leaves_it_to_the_wording(both: Serving, vectors: TokenVectors) -> None:
    vectors.fails = EngineDeadError("it has died")
    consensus = ask(both)["consensus"]
    assert (consensus["measure"], consensus["base"], consensus["threshold"]) == ("chrF", None, 0.4)
    assert consensus["agreement"] is not None
    assert eventually(lambda: not vectors.places.live)


def test_an_answer_beyond_its_context_leaves_it_to_the_wording(both: Serving) -> None:
    assert ask(both, max_tokens=200)["consensus"]["measure"] == "chrF"


@pytest.mark.parametrize(("threshold", "joined"), [(0, True), (1, False)])
def test_the_request_says_from_where_answers_agree(both: Serving, threshold: float, joined: bool) -> None:
    consensus = ask(both, agreement_threshold=threshold)["consensus"]
    assert consensus["threshold"] == threshold
    several = [group for group in consensus["languages"] if len(group["voices"]) > 1]
    assert several
    assert all((len(group["clusters"]) == 1) is joined for group in several)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, "high"])
def test_a_threshold_is_from_0_to_1(both: Serving, threshold: Any) -> None:
    reply = both.http.post(PATH, json=ASK | {"agreement_threshold": threshold})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "agreement_threshold")


def test_without_models_the_base_that_writes_is_asked(both: Serving) -> None:
    reply = both.http.post(PATH, json={key: value for key, value in ASK.items() if key != "models"})
    assert reply.status_code == 200, reply.text
    names = [voice["model"] for voice in reply.json()["voices"]]
    assert names == [BASE, f"{EN}@v1.1", f"{SV}@v1.1"]


def test_a_base_that_embeds_is_no_voice(both: Serving) -> None:
    reply = both.http.post(PATH, json=ASK | {"models": [BASE, VECTORS]})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "models[1]")
