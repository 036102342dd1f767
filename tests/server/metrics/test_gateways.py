"""The contract of llm-d-router 0.10 with model servers, read from a scrape as its extractor reads it.

docs/plugin-metric-protocol.md there lists the metrics; its defaults for vLLM name them as here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from server.config.settings import Settings
from server.metrics.engine_state import EngineInfo, EngineState
from server.metrics.gateways import GatewayView
from tests.server.http_server import BASE, EN, SV, Serving, make_app, served

CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Endpoint:
    """What the router keeps of one server after a scrape."""

    waiting: int
    running: int
    kv_usage: float
    active: set[str]
    queued: set[str]
    slots: int
    loaded: dict[str, tuple[str, bool, int]]
    """Adapter → level, pinned, rank."""
    on_gpu: int
    base: str
    block_size: int
    blocks: int
    updated: float


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def extract(text: str) -> Endpoint:
    """A scrape as the router's extractor takes it; fails on a missing family, type or label."""
    found = families(text)

    def gauge(name: str) -> list[Any]:
        assert found[name].type == "gauge", name
        return found[name].samples

    (info,) = gauge("vllm:lora_requests_info")
    (count,) = gauge("vllm:num_gpu_loaded_lora_adapters")
    (cache,) = gauge("vllm:cache_config_info")
    # A series at 0 is treated as absent.
    resident = [one for one in gauge("vllm:lora_adapter_loaded") if one.value]
    names: Callable[[str], set[str]] = lambda text: {name.strip() for name in text.split(",") if name.strip()}  # noqa: E731
    return Endpoint(
        waiting=int(gauge("vllm:num_requests_waiting")[0].value),
        running=int(gauge("vllm:num_requests_running")[0].value),
        kv_usage=gauge("vllm:kv_cache_usage_perc")[0].value,
        active=names(info.labels["running_lora_adapters"]),
        queued=names(info.labels["waiting_lora_adapters"]),
        slots=int(gauge("vllm:max_gpu_lora_adapters")[0].value) or int(info.labels["max_lora"]),
        loaded={
            one.labels["adapter_name"]: (
                one.labels["level"],
                {"true": True, "false": False}[one.labels["pinned"]],
                int(one.labels["rank"]),
            )
            for one in resident
        },
        on_gpu=int(count.value),
        base=count.labels["model_name"],
        block_size=int(cache.labels["block_size"]),
        blocks=int(cache.labels["num_gpu_blocks"]),
        updated=info.value,
    )


@pytest.fixture(scope="module")
def fresh(tiny_base: Path, voices: dict[str, Adapter], graphs: Path, engine_kind: str) -> Iterator[Serving]:
    settings = Settings(port=0, max_num_seqs=4, max_queue=8, log_level="warning", drain_seconds=1)
    made = make_app(tiny_base, voices, graphs, settings, engine=engine_kind)
    with served(made, settings, voices) as serving:
        yield serving


def endpoint(serving: Serving) -> Endpoint:
    return extract(serving.http.get("/metrics").text)


def ask(serving: Serving, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hej"}], "max_tokens": 2}
    assert serving.http.post(CHAT, json=body).status_code == 200


def test_an_idle_server_says_who_is_resident(fresh: Serving) -> None:
    seen = endpoint(fresh)
    assert (seen.running, seen.waiting, seen.active, seen.queued) == (0, 0, set(), set())
    assert seen.base == BASE, "a request for it needs no adapter"
    assert seen.loaded[EN] == ("gpu", False, fresh.adapters["en"].rank)
    assert seen.loaded[SV] == ("gpu", False, fresh.adapters["sv"].rank)
    assert seen.on_gpu == len(fresh.engine.state().resident)
    assert seen.slots == fresh.engine.info.device_adapters
    assert seen.kv_usage == 0
    assert abs(seen.updated - time.time()) < 60, "the time of the scrape, so that the latest can be found"


def test_kv_memory_is_said_in_blocks(fresh: Serving) -> None:
    seen = endpoint(fresh)
    assert seen.block_size in (16, 32)
    capacity = fresh.engine.state().kv_capacity
    assert abs(seen.block_size * seen.blocks - capacity) <= seen.block_size, "vLLM keeps one block for itself"


def test_names_are_those_that_requests_use(fresh: Serving) -> None:
    """The alias for its active version, the full name for another one that is resident."""
    ask(fresh, f"{SV}@v1.0")
    seen = endpoint(fresh)
    assert f"{SV}@v1.0" in seen.loaded
    assert seen.loaded[SV][2] == fresh.adapters["sv"].rank
    for name in seen.loaded:
        ask(fresh, name)


def test_what_runs_is_named_as_what_is_loaded(fresh: Serving) -> None:
    body = {"model": SV, "messages": [{"role": "user", "content": "Hej"}], "max_tokens": 200}
    with fresh.http.stream("POST", CHAT, json=body | {"stream": True, "ignore_eos": True, "n": 8}) as reply:
        assert reply.status_code == 200, reply.read()
        lines = reply.iter_lines()
        next(lines)
        seen = endpoint(fresh)
    assert seen.active == {SV}
    assert seen.active <= seen.loaded.keys()
    assert 0 < seen.running <= 4


def test_loads_are_timed_by_transition(fresh: Serving) -> None:
    family = families(fresh.http.get("/metrics").text)["vllm:lora_adapter_load_seconds"]
    assert family.type == "histogram"
    (count,) = [one for one in family.samples if one.name.endswith("_count")]
    assert count.labels == {"model_name": BASE, "transition": "load"}
    assert count.value == sum(
        value
        for name, value in fresh.counts().items()
        if name.startswith("oneseek_adapter_loads_total") and 'outcome="ok"' in name
    )


def test_an_adapter_that_has_gone_has_no_series(fresh: Serving) -> None:
    ask(fresh, EN)
    alias, version = EN, fresh.adapters["en"].version
    fresh.served.remove(f"{alias}@{version}")
    try:
        text = fresh.http.get("/metrics").text
        assert not [line for line in text.splitlines() if f'adapter_name="{EN}"' in line]
    finally:
        fresh.served.add(fresh.adapters["en"])


def test_no_tier_that_nothing_produces(fresh: Serving) -> None:
    assert "vllm:num_cpu_loaded_lora_adapters" not in families(fresh.http.get("/metrics").text)
    assert {level for level, _, _ in endpoint(fresh).loaded.values()} == {"gpu"}


def adapter(name: str, version: str = "v1") -> Adapter:
    return Adapter(
        alias=name, version=version, digest=f"sha256:{name}{version}", path=Path(name), rank=8, alpha=16.0,
        targets=("q_proj",),
    )  # fmt: skip


def scraped(
    resident: Mapping[str, Any], *, kept: set[str], tiers: Any = ("device", "host")
) -> dict[str, Metric]:
    names = ServedAdapters([adapter("a"), adapter("b"), adapter("c")], base_digest="x", base_name="base")
    info = EngineInfo(
        name="none",
        base_digest="x",
        context=1,
        vocabulary=1,
        blends=True,
        max_adapters=4,
        tiers=tiers,
        at_once=2,
    )
    view = GatewayView("base", info, EngineState(True, 0.0, resident=resident), names.snapshot, kept)
    return {family.name: family for family in view.families()}


def test_host_memory_is_a_level_of_its_own() -> None:
    found = scraped({"sha256:av1": "device", "sha256:bv1": "host"}, kept={"sha256:av1"})
    labels = [one.labels for one in found["vllm:lora_adapter_loaded"].samples]
    assert [(one["adapter_name"], one["level"], one["pinned"]) for one in labels] == [
        ("a", "gpu", "true"),
        ("b", "cpu", "false"),
    ]
    value = {
        name: family.samples[0].value for name, family in found.items() if "num_" in name or "max_" in name
    }
    assert value == {
        "vllm:num_gpu_loaded_lora_adapters": 1,
        "vllm:num_cpu_loaded_lora_adapters": 1,
        "vllm:max_gpu_lora_adapters": 2,
    }


def test_counts_are_there_before_anything_is_loaded() -> None:
    found = scraped({}, kept=set())
    assert not found["vllm:lora_adapter_loaded"].samples
    assert found["vllm:num_gpu_loaded_lora_adapters"].samples[0].value == 0
    assert "vllm:cache_config_info" not in found, "this engine exports its own"
