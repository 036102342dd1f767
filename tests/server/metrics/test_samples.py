"""The ring of samples: differences, quantiles, peaks and its length; and who may see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from server.metrics.engine_state import EngineInfo, EngineState
from server.metrics.metrics import Metrics
from server.metrics.samples import KEPT, MOST_NAMES, OTHERS, SampledBase, Samples, quantile
from server.request import Delta, Usage
from tests.server.administered import ADMIN, KEY, Place, administered
from tests.server.http_server import METRICS_KEY, Serving, eventually

DIGEST = "sha256:" + "1" * 64


class Engine:
    """Reports what a test sets."""

    def __init__(self) -> None:
        self.now = EngineState(alive=True, progress=0.0)

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("embedded", DIGEST, 64, 64, True, 4)

    def state(self) -> EngineState:
        return self.now


def sampled(name: str = "tiny") -> tuple[Metrics, Engine, SampledBase]:
    metrics, engine = Metrics(process=False), Engine()
    return metrics, engine, SampledBase(name, metrics, engine, lambda: ())


def answer(metrics: Metrics, alias: str, tokens: int, base: str = "tiny") -> None:
    meter = metrics.meter(alias, "v1.0", 0.0, base)
    for _ in range(tokens - 1):
        meter.delta(Delta("a", token_ids=(1,)))
    meter.delta(Delta("a", token_ids=(1,), finish_reason="stop", usage=Usage(3, 0, tokens)))


def test_a_sample_has_what_came_since_the_one_before() -> None:
    metrics, _, base = sampled()
    samples = Samples([base])
    answer(metrics, "sv", 5)
    metrics.requests.labels("/v1/chat/completions", "sv", "v1.0", "sv", "200").inc(2)
    metrics.requests.labels("/v1/chat/completions", "sv", "v1.0", "sv", "500").inc()
    metrics.requests.labels("/v1/models", "none", "", "none", "200").inc(9)
    metrics.routes.labels("sv", "language").inc(3)
    first = samples.take()
    assert dict(first.tokens) == {"sv": 5}
    assert {name: (one.answered, one.failed) for name, one in first.requests.items()} == {"sv@v1.0": (3, 1)}
    assert dict(first.routes) == {"sv": 3}
    assert first.first_token is not None
    assert first.between_tokens is not None
    second = samples.take()
    assert second.number == 2
    assert (second.tokens, second.requests, second.routes) == ({}, {}, {})
    assert (second.first_token, second.between_tokens) == (None, None)


def test_tokens_count_while_an_answer_still_comes() -> None:
    metrics, _, base = sampled()
    samples = Samples([base])
    metrics.meter("sv", "v1.0", 0.0, "tiny").delta(Delta("ab", token_ids=(1, 2)))
    assert dict(samples.take().tokens) == {"sv": 2}


def test_peaks_between_two_samples_are_kept() -> None:
    _, engine, base = sampled()
    samples = Samples([base])
    engine.now = EngineState(
        alive=True, progress=0.0, running={"": 2}, waiting={"": 4}, kv_tokens=30, kv_cached=10, kv_capacity=40
    )
    samples.look()
    engine.now = EngineState(alive=True, progress=0.0, kv_capacity=40)
    samples.look()
    busy, idle = samples.take(), samples.take()
    assert (dict(busy.running), busy.waiting, busy.kv_usage) == ({"base": 2}, 4, 0.5)
    assert (idle.running, idle.waiting, idle.kv_usage) == ({}, 0, None)


def test_several_bases_are_told_apart() -> None:
    one, _, first = sampled("one")
    other, _, second = sampled("other")
    samples = Samples([first, second])
    answer(one, "sv", 2, "one")
    answer(other, "sv", 3, "other")
    assert dict(samples.take().tokens) == {"one:sv": 2, "other:sv": 3}


def test_a_sample_is_bounded_whatever_the_number_of_adapters() -> None:
    metrics, _, base = sampled()
    samples = Samples([base])
    for number in range(3 * MOST_NAMES):
        answer(metrics, f"a{number}", 2)
    tokens = samples.take().tokens
    assert len(tokens) == MOST_NAMES + 1
    assert sum(tokens.values()) == 6 * MOST_NAMES
    assert tokens[OTHERS] == 4 * MOST_NAMES


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [([0, 4, 0], 0.5, 1.5), ([2, 2, 0], 0.5, 1.0), ([0, 0, 3], 0.95, 2.0), ([1, 0, 0], 0.95, 0.95)],
)
def test_quantiles_are_within_their_bucket(counts: list[int], share: float, expected: float) -> None:
    assert quantile((1.0, 2.0), counts, share) == pytest.approx(expected)


@pytest.fixture(scope="module")
def keyed(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Iterator[Serving]:
    place = Place.make(tmp_path_factory.mktemp("samples"), tiny_base, make_adapter)
    with administered(place, place.settings(api_keys=(KEY,), metrics_keys=(METRICS_KEY,))) as serving:
        yield serving


@pytest.mark.parametrize(("key", "status"), [("", 401), (KEY, 403), (METRICS_KEY, 200), (ADMIN, 200)])
def test_it_needs_the_key_of_the_metrics(keyed: Serving, key: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    assert httpx.get(keyed.url + "/metrics/recent", headers=headers).status_code == status


def test_samples_come_by_themselves_and_after_a_number(keyed: Serving) -> None:
    def data(since: str = "0") -> list[dict[str, float]]:
        answer = keyed.http.get(f"/metrics/recent?since={since}")
        assert answer.json()["kept"] == KEPT
        return answer.json()["data"]

    assert eventually(lambda: len(data()) > 0, 12)
    last = data()[-1]["number"]
    assert all(one["number"] > last for one in data(str(int(last))))
    for wrong in ("x", "-1", "1.5", "9" * 40):
        refused = keyed.http.get(f"/metrics/recent?since={wrong}")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "since")
