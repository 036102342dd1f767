"""A thousand adapters keep a scrape quick: the resident and most used have series, the rest share."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from server.metrics.collectors import EngineCollector
from server.metrics.engine_state import EngineInfo, EngineState
from server.metrics.exposition import scrape
from server.metrics.measured import MeasuredBase
from server.metrics.metrics import Metrics
from server.metrics.shown import MOST_USED, PAUSE
from server.request import Delta, Timing, Usage
from tests.timing import least_seconds

SLOTS, COUNT = 64, 1000
CHAT = "/v1/chat/completions"


def named(number: int) -> Adapter:
    return Adapter(
        alias=f"customer-{number:04}", version="v1.0", digest=f"sha256:{number:064}", path=Path(str(number)),
        rank=16, alpha=32.0, targets=("q_proj",),
    )  # fmt: skip


class Parsed(CollectorRegistry):
    """What a scrape held, for prometheus-client to write."""

    def __init__(self, body: bytes) -> None:
        super().__init__(auto_describe=False)
        self._families = list(text_string_to_metric_families(body.decode()))

    def collect(self) -> Iterable[Metric]:
        return self._families


class House:
    """A base with many adapters, of which a few are in an engine that does nothing."""

    def __init__(self, count: int = COUNT) -> None:
        self.adapters = [named(number) for number in range(count)]
        self.served = ServedAdapters(self.adapters, base_digest="sha256:base", base_name="base")
        self.resident: set[str] = set()
        self.info = EngineInfo(
            name="none", base_digest="sha256:base", context=64, vocabulary=64, blends=True, max_adapters=SLOTS
        )
        self.metrics = Metrics(process=False)
        self.metrics.serve("base", MeasuredBase(self.served, lambda: self.resident, SLOTS))
        self.metrics.engines.add(
            EngineCollector(self, "base", self.served, set[str], self.metrics.shown.uses)
        )

    def state(self) -> EngineState:
        return EngineState(alive=True, progress=0.0, resident=dict.fromkeys(self.resident, "device"))

    def bring_in(self, adapters: Iterable[Adapter]) -> None:
        self.resident = {adapter.digest for adapter in adapters}

    def answer(self, adapter: Adapter) -> None:
        """All that is counted of one answer."""
        name, metrics = (adapter.alias, adapter.version), self.metrics
        metrics.shown.used(*name)
        metrics.record_load(adapter, "ok", 0.1, "base")
        meter = metrics.meter(*name, 0.0, "base")
        meter.delta(Delta("x", (1,)))
        meter.delta(
            Delta("y", (2,), finish_reason="stop", usage=Usage(7, 2, 2), timing=Timing(1, 1.5, 1.75, 2))
        )
        metrics.requests.labels(CHAT, *name, "sv", "200").inc()
        metrics.duration.labels(CHAT, adapter.alias).observe(0.3)
        metrics.evictions.labels(adapter.alias).inc()

    def names(self, metric: str) -> dict[str, float]:
        """What the label `adapter` says in the samples of a metric, and their values."""
        lines = scrape(self.metrics.exposed, "")[0].decode().splitlines()
        found = [
            re.search('adapter="([^"]*)".* (.*)', line) for line in lines if line.startswith(f"{metric}{{")
        ]
        return {match[1]: float(match[2]) for match in found if match is not None}


def test_a_thousand_adapters_leave_the_resident_and_the_most_used() -> None:
    house = House()
    for adapter in house.adapters:
        for _ in range(3 if adapter.alias < "customer-0200" else 1):
            house.answer(adapter)
    house.bring_in(house.adapters[-SLOTS:])
    for adapter in house.adapters[-SLOTS:]:
        house.answer(adapter)
    shown = house.names("oneseek_requests_total")
    expected = {adapter.alias for adapter in (*house.adapters[:MOST_USED], *house.adapters[-SLOTS:])}
    assert shown.keys() == expected | {"other"}
    assert all(shown[adapter.alias] == 3 for adapter in house.adapters[:MOST_USED])
    assert house.names("oneseek_queue_seconds_count").keys() == shown.keys()
    resident = house.names("oneseek_adapter_resident")
    assert len(resident) <= MOST_USED + SLOTS
    assert sum(resident.values()) == SLOTS


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text;version=1.0.0"])
def test_a_scrape_of_a_thousand_adapters_is_quick(accept: str) -> None:
    house = House()
    house.bring_in(house.adapters[-SLOTS:])
    for adapter in house.adapters:
        house.answer(adapter)
    body, _ = scrape(house.metrics.exposed, "text/plain")
    assert body.count(b"\n") > 30_000
    same = Parsed(body)
    ours, theirs = least_seconds(
        lambda: scrape(house.metrics.exposed, accept), lambda: generate_latest(same), turns=3
    )
    assert 3 * ours < theirs


def test_what_was_used_little_makes_room_for_what_is_used_more() -> None:
    house = House(MOST_USED + SLOTS + 1)
    for adapter in house.adapters[:-1]:
        house.answer(adapter)
    late = house.adapters[-1]
    house.answer(late)
    assert late.alias not in house.names("oneseek_requests_total"), "there is no room, and it is no better"
    assert house.names("oneseek_requests_total")["other"] == 1
    for _ in range(5):
        house.metrics.shown.used(late.alias, late.version)
    end = time.monotonic() + 5 * PAUSE
    while late.alias not in house.names("oneseek_requests_total"):
        assert time.monotonic() < end
        time.sleep(0.1)
        house.answer(late)
    assert len(house.names("oneseek_requests_total")) <= MOST_USED + SLOTS + 1


def test_what_comes_into_the_engine_is_shown_at_once() -> None:
    house = House(MOST_USED + SLOTS + 1)
    for adapter in house.adapters[:-1]:
        house.answer(adapter)
    house.bring_in(house.adapters[-1:])
    house.answer(house.adapters[-1])
    assert house.names("oneseek_requests_total")[house.adapters[-1].alias] == 1
    assert house.names("oneseek_adapter_loads_total")[house.adapters[-1].alias] == 1


def test_what_is_counted_under_a_name_keeps_its_series() -> None:
    house = House(MOST_USED + 2 * SLOTS)
    busy, others = house.adapters[0], house.adapters[1:]
    with house.metrics.using(busy):
        house.answer(busy)
        for adapter in others:
            house.bring_in([adapter])
            house.answer(adapter)
            house.answer(adapter)
        assert house.names("oneseek_requests_total")[busy.alias] == 1


def test_what_the_rest_shares_never_falls() -> None:
    house = House()
    before = 0.0
    for adapter in house.adapters:
        house.answer(adapter)
        if adapter.alias.endswith("00"):
            now = house.names("oneseek_requests_total").get("other", 0.0)
            assert now >= before
            before = now
    assert before > 0


def test_what_is_no_adapter_is_always_counted_by_its_name() -> None:
    house = House()
    for adapter in house.adapters:
        house.answer(adapter)
    for name in ("base", "blend", "none", "unknown"):
        house.metrics.requests.labels(CHAT, name, "", "none", "200").inc()
    assert {"base", "blend", "none", "unknown"} <= house.names("oneseek_requests_total").keys()
