"""Metrics say what clients saw, under names that dashboards know."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapters.lora.manifest import Adapter
from server.config.settings import Settings
from server.metrics.metrics import Metrics
from server.request import Delta, Timing, Usage
from tests.server.http_server import BASE, BASE_DIGEST, EN, SV, Serving, make_app, served

CHAT = "/v1/chat/completions"
TEN: dict[str, Any] = {
    "model": SV,
    "messages": [{"role": "user", "content": "Vem är du?"}],
    "max_tokens": 10,
    "ignore_eos": True,
    "temperature": 0,
}


@pytest.fixture(scope="module")
def fresh(tiny_base: Path, voices: dict[str, Adapter], graphs: Path, engine_kind: str) -> Iterator[Serving]:
    """A server whose counters nobody else moves."""
    settings = Settings(port=0, max_num_seqs=4, max_queue=8, log_level="warning", drain_seconds=1)
    with served(
        make_app(tiny_base, voices, graphs, settings, engine=engine_kind), settings, voices
    ) as serving:
        yield serving


@pytest.fixture
def moved(fresh: Serving) -> Callable[[], dict[str, float]]:
    """What has moved since the test began."""
    before = fresh.counts()

    def difference() -> dict[str, float]:
        after = fresh.counts()
        return {
            name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name)
        }

    return difference


def documented() -> dict[str, str]:
    """Metric → labels, from docs/metrics.md."""
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z0-9_:]+)` \| [a-z]+ \| ([^|]*) \|", text, re.MULTILINE)
    return {name: labels.strip().replace("`", "") for name, labels in rows}


def test_the_documented_metrics_are_those_that_are_scraped(fresh: Serving) -> None:
    fresh.http.post(CHAT, json=TEN | {"model": "none"})
    fresh.http.post(CHAT, json=TEN)
    scraped = fresh.http.get("/metrics").text
    names: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(scraped):
        name = family.name + ("_total" if family.type == "counter" else "")
        names[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    if fresh.engine.info.name == "vllm":  # whose own metrics come beside ours, and are vLLM's to document
        names = {
            name: labels for name, labels in names.items() if name in documented() or name[:5] != "vllm:"
        }
    expected = {name for name in documented() if sys.platform == "linux" or name[:8] != "process_"}
    if "host" not in fresh.engine.info.tiers:
        expected.remove("vllm:num_cpu_loaded_lora_adapters")
    assert names.keys() == expected
    own = {"vllm:cache_config_info"} if fresh.engine.info.name == "vllm" else set[str]()
    for name, labels in documented().items():
        if names.get(name) and name not in own:
            assert names[name] == set(labels.replace(",", " ").split()) - {"–"}, name


def test_ten_requests_of_ten_tokens_count_a_hundred(
    fresh: Serving, moved: Callable[[], dict[str, float]]
) -> None:
    prompt = 0
    for number in range(10):
        body = TEN | {"stream": number % 2 == 0, "stream_options": None}
        reply = fresh.http.post(CHAT, json=body)
        if number % 2:
            usage = reply.json()["usage"]
            assert usage["completion_tokens"] == 10
            prompt = usage["prompt_tokens"]
    counts = moved()
    voice = f'adapter="{SV}"'
    assert counts[f'oneseek_tokens_total{{{voice},kind="completion",version="v1.1"}}'] == 100
    assert counts[f'oneseek_tokens_total{{{voice},kind="prompt",version="v1.1"}}'] == 10 * prompt
    assert counts[f'oneseek_time_to_first_token_seconds_count{{{voice},version="v1.1"}}'] == 10
    assert counts[f"oneseek_queue_seconds_count{{{voice}}}"] == 10
    assert counts[f"oneseek_prefill_seconds_count{{{voice}}}"] == 10
    labels = f'{voice},endpoint="{CHAT}",language="sv",status="200",version="v1.1"'
    assert counts[f"oneseek_requests_total{{{labels}}}"] == 10
    assert counts[f'oneseek_request_duration_seconds_count{{{voice},endpoint="{CHAT}"}}'] == 10
    assert counts['oneseek_route_decisions_total{language="sv",reason="model"}'] == 10
    assert counts["oneseek_route_seconds_count"] == 10
    assert counts["oneseek_route_confidence_count"] == 10
    assert counts['oneseek_step_seconds_count{base="tiny"}'] > 0
    gaps = counts[f'oneseek_inter_token_latency_seconds_count{{{voice},version="v1.1"}}']
    assert 0 < gaps <= 90


def test_choices_are_counted_as_clients_are_told(
    fresh: Serving, moved: Callable[[], dict[str, float]]
) -> None:
    usage = fresh.http.post(CHAT, json=TEN | {"n": 3}).json()["usage"]
    assert usage["completion_tokens"] == 30
    counts = moved()
    assert counts[f'oneseek_tokens_total{{adapter="{SV}",kind="completion",version="v1.1"}}'] == 30


def test_versions_and_blends_have_series_of_their_own(
    fresh: Serving, moved: Callable[[], dict[str, float]]
) -> None:
    asked = {f"{SV}@v1.0": (SV, "v1.0"), "en": (EN, "v1.1"), "base": ("base", "")}
    if fresh.engine.info.blends:
        asked["sv=0.5,en=0.5"] = ("blend", "")
    for header in asked:
        fresh.http.post(CHAT, json=TEN, headers={"X-OneSeek-Adapter": header})
    counts = moved()
    for alias, version in asked.values():
        name = f'oneseek_tokens_total{{adapter="{alias}",kind="completion",version="{version}"}}'
        assert counts[name] == 10


def test_clients_cannot_grow_the_series(fresh: Serving, moved: Callable[[], dict[str, float]]) -> None:
    fresh.http.post(CHAT, json=TEN | {"model": "first"})
    fresh.http.get("/first")
    series = set(fresh.counts())
    for number in range(8):
        name = f"made-up-{number}"
        fresh.http.post(CHAT, json=TEN | {"model": name})
        fresh.http.post(CHAT, json=TEN, headers={"X-OneSeek-Adapter": f"sv=1.{number},{name}=1"})
        fresh.http.post(CHAT, json=TEN | {name: 1})
        fresh.http.get(f"/{name}")
        fresh.http.get(f"/v1/models/{name}")
        fresh.http.request(f"MADE{number}", "/live")
    grown = {re.sub(r',le="[^"]*"', "", name) for name in set(fresh.counts()) - series}
    assert not [name for name in grown if "made-up" in name]
    assert len(grown) <= 12
    unknown = 'adapter="unknown",endpoint="/v1/chat/completions",language="none",status="404",version=""'
    assert moved()[f"oneseek_requests_total{{{unknown}}}"] == 17


def test_residency_by_tier(fresh: Serving) -> None:
    counts = fresh.counts()
    digest = fresh.adapters["sv"].digest
    labels = f'adapter="{SV}",digest="{digest}"'
    assert {
        name: value for name, value in counts.items() if "oneseek_adapter_resident" in name and labels in name
    } == {f'oneseek_adapter_resident{{{labels},tier="device",version="v1.1"}}': 1}, (
        "no tier that no engine puts anything in"
    )
    assert counts[f'oneseek_adapter_loads_total{{adapter="{EN}",outcome="ok"}}'] == 1
    assert any(
        name.startswith("oneseek_build_info{") and BASE_DIGEST in name and value == 1
        for name, value in counts.items()
    )


def test_running_requests_show_by_adapter_and_to_gateways(fresh: Serving) -> None:
    body = TEN | {"max_tokens": 200, "stream": True, "n": 8}
    with fresh.http.stream("POST", CHAT, json=body):
        counts = fresh.counts()
        inside = counts[f'oneseek_requests_running{{adapter="{SV}",base="{BASE}"}}']
        waiting = counts.get(f'oneseek_requests_waiting{{adapter="{SV}",base="{BASE}"}}', 0.0)
        assert 0 < inside <= 4
        assert inside + waiting <= 8
        assert counts[f'vllm:num_requests_running{{model_name="{BASE}"}}'] == inside
        assert 0 < counts[f'vllm:kv_cache_usage_perc{{model_name="{BASE}"}}'] <= 1
        (info,) = [name for name in counts if name.startswith("vllm:lora_requests_info")]
        assert f'running_lora_adapters="{SV}"' in info
    for _ in range(500):
        (info,) = [name for name in fresh.counts() if name.startswith("vllm:lora_requests_info")]
        if 'running_lora_adapters=""' in info and 'waiting_lora_adapters=""' in info:
            break
    else:
        raise AssertionError("an old label set is still shown")


def test_the_prefix_cache_shows(fresh: Serving, moved: Callable[[], dict[str, float]]) -> None:
    text = "Jag svarar på två språk, och jag är en liten modell för prov. " * 6
    body = TEN | {"messages": [{"role": "user", "content": text}]}
    told = [
        fresh.http.post(CHAT, json=body).json()["usage"]["prompt_tokens_details"]["cached_tokens"]
        for _ in range(2)
    ]
    assert told[1] > 0
    counts = moved()
    assert counts[f'oneseek_tokens_total{{adapter="{SV}",kind="cached",version="v1.1"}}'] == sum(told)
    assert counts['oneseek_prefix_cache_hits_total{base="tiny"}'] == sum(told)


def test_probes_and_scrapes_are_not_counted(fresh: Serving, moved: Callable[[], dict[str, float]]) -> None:
    for path in ("/live", "/ready", "/health", "/metrics"):
        fresh.http.get(path)
    assert not [name for name in moved() if name.startswith("oneseek_requests_total")]


def test_openmetrics_where_a_scraper_asks(fresh: Serving) -> None:
    reply = fresh.http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    assert reply.text.endswith("# EOF\n")


# Every metric in the expressions of vLLM's own board (its examples, prometheus_grafana/grafana.json).
BOARD = {
    "vllm:e2e_request_latency_seconds": ("_bucket", "_sum", "_count"),
    "vllm:time_per_output_token_seconds": ("_bucket", "_sum", "_count"),
    "vllm:time_to_first_token_seconds": ("_bucket", "_sum", "_count"),
    "vllm:request_prompt_tokens": ("_bucket",),
    "vllm:request_generation_tokens": ("_bucket",),
    "vllm:request_queue_time_seconds": ("_sum",),
    "vllm:request_prefill_time_seconds": ("_sum",),
    "vllm:request_decode_time_seconds": ("_sum",),
    "vllm:request_max_num_generation_tokens": ("_sum",),
    "vllm:prompt_tokens": ("_total",),
    "vllm:generation_tokens": ("_total",),
    "vllm:request_success": ("_total",),
    "vllm:num_requests_running": ("",),
    "vllm:num_requests_waiting": ("",),
    "vllm:num_requests_swapped": ("",),
    "vllm:gpu_cache_usage_perc": ("",),
    "vllm:cpu_cache_usage_perc": ("",),
}
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
ESCAPING = "application/openmetrics-text;version=1.0.0;escaping=underscores,text/plain;version=0.0.4;q=0.5"


@pytest.mark.parametrize("accept", ["*/*", PROMETHEUS_2, PROMETHEUS_3, ESCAPING])
def test_vllms_board_finds_every_name_with_its_colon(fresh: Serving, accept: str) -> None:
    scraped = fresh.http.get("/metrics", headers={"Accept": accept}).text
    for name, suffixes in BOARD.items():
        for suffix in suffixes:
            assert re.search(rf'^{name}{suffix}\{{[^}}]*model_name="{BASE}"', scraped, re.MULTILINE), name
    assert "vllm_" not in scraped


def test_lengths_and_ends_of_answers(fresh: Serving, moved: Callable[[], dict[str, float]]) -> None:
    usage = fresh.http.post(CHAT, json=TEN).json()["usage"]
    counts = moved()
    model = f'model_name="{BASE}"'
    assert counts[f"vllm:request_generation_tokens_sum{{{model}}}"] == 10
    assert counts[f'vllm:request_generation_tokens_bucket{{le="10.0",{model}}}'] == 1
    assert f'vllm:request_generation_tokens_bucket{{le="5.0",{model}}}' not in counts
    assert counts[f"vllm:request_prompt_tokens_sum{{{model}}}"] == usage["prompt_tokens"]
    assert counts[f'vllm:request_success_total{{finished_reason="length",{model}}}'] == 1
    assert counts[f"vllm:generation_tokens_total{{{model}}}"] == 10
    assert counts[f"vllm:e2e_request_latency_seconds_count{{{model}}}"] == 1
    assert counts[f"vllm:time_to_first_token_seconds_count{{{model}}}"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_the_process_says_what_it_uses(fresh: Serving) -> None:
    counts = fresh.counts()
    assert counts["process_resident_memory_bytes"] > 0
    assert counts["process_open_fds"] < counts["process_max_fds"]


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_what_was_generated_before_a_cancellation_is_counted() -> None:
    metrics = Metrics()
    meter = metrics.meter("a", "v1", 0.0)
    meter.delta(Delta("x", (1, 2)))
    meter.delta(Delta("", (3,)))
    meter.close(5, "disconnect")
    assert value(metrics, "oneseek_tokens_total", adapter="a", version="v1", kind="completion") == 3
    assert value(metrics, "oneseek_tokens_total", adapter="a", version="v1", kind="prompt") == 5
    assert value(metrics, "oneseek_cancelled_total", reason="disconnect") == 1


def test_a_finished_answer_is_counted_once() -> None:
    metrics = Metrics()
    meter = metrics.meter("a", "v1", 0.0)
    meter.delta(Delta("x", (1,)))
    meter.delta(
        Delta("y", (2,), finish_reason="stop", usage=Usage(7, 3, 2), timing=Timing(1.0, 1.5, 1.75, 2.0))
    )
    meter.close(7, "disconnect")
    assert value(metrics, "oneseek_tokens_total", adapter="a", version="v1", kind="completion") == 2
    assert value(metrics, "oneseek_tokens_total", adapter="a", version="v1", kind="prompt") == 7
    assert value(metrics, "oneseek_tokens_total", adapter="a", version="v1", kind="cached") == 3
    assert value(metrics, "oneseek_queue_seconds_sum", adapter="a") == 0.5
    assert value(metrics, "oneseek_prefill_seconds_sum", adapter="a") == 0.25
    assert value(metrics, "oneseek_cancelled_total", reason="disconnect") == 0
