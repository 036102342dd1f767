"""Exports the metrics that show a gateway which adapters are loaded here, so that it can route requests to
servers that already hold their adapter.

The metrics have vLLM's names, and name adapters as clients do. They follow the contract of llm-d-router 0.10
(its docs/plugin-metric-protocol.md) and of the Gateway API's inference extension. vLLM's own metrics of the
same names contain digests instead, so they are not exported as well.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from adapters.registry.snapshot import Snapshot
from server.metrics.engine_state import EngineInfo, EngineState, Tier

RESIDENCY = frozenset(
    {
        "vllm:lora_adapter_loaded",
        "vllm:num_gpu_loaded_lora_adapters",
        "vllm:num_cpu_loaded_lora_adapters",
        "vllm:max_gpu_lora_adapters",
        "vllm:lora_adapter_load_seconds",
    }
)
_LEVELS: Mapping[Tier, str] = {"device": "gpu", "host": "cpu"}


@dataclass(frozen=True, slots=True)
class GatewayView:
    """The state of one engine, from which the metrics for gateways are made."""

    base: str
    info: EngineInfo
    state: EngineState
    names: Snapshot
    kept: Collection[str]
    """Digests of the adapters that are never evicted."""

    def families(self) -> Iterable[Metric]:
        """Yield every metric that gateways read and that vLLM does not export itself."""
        yield self._requests()
        yield self._loaded()
        yield from self._slots()
        if self.info.kv_block and self.state.kv_capacity:
            yield self._cache()

    def _requests(self) -> Metric:
        lora = GaugeMetricFamily(
            "vllm:lora_requests_info",
            "Labels list adapters with requests; the value is the time of the scrape",
            labels=("max_lora", "running_lora_adapters", "waiting_lora_adapters"),
        )
        public = {
            adapter.digest: self._public(adapter.alias, adapter.version)
            for adapter in self.names.adapters()
            if adapter.digest in self.state.running or adapter.digest in self.state.waiting
        }
        running, waiting = (
            ",".join(sorted({public.get(one, "unknown") for one, count in counts.items() if one and count}))
            for counts in (self.state.running, self.state.waiting)
        )
        lora.add_metric((str(self.info.max_adapters), running, waiting), time.time())
        return lora

    def _loaded(self) -> Metric:
        loaded = GaugeMetricFamily(
            "vllm:lora_adapter_loaded",
            "1 for each adapter in memory; adapter_name is the name that requests use",
            labels=("model_name", "adapter_name", "level", "pinned", "rank"),
        )
        for adapter in self.names.adapters():
            tier = self.state.resident.get(adapter.digest)
            if tier is not None and tier in _LEVELS:
                name = self._public(adapter.alias, adapter.version)
                pinned = "true" if adapter.digest in self.kept else "false"
                loaded.add_metric((self.base, name, _LEVELS[tier], pinned, str(adapter.rank)), 1)
        return loaded

    def _public(self, alias: str, version: str) -> str:
        """Return the name by which requests can ask for the version: the alias if it is active, else the full
        name.
        """
        return alias if self.names.active(alias).version == version else f"{alias}@{version}"

    def _slots(self) -> Iterable[Metric]:
        counted: dict[str, tuple[str, int]] = {
            "num_gpu_loaded_lora_adapters": ("Adapters in the engine's slots", self._count("device")),
            "max_gpu_lora_adapters": ("Number of adapter slots in the engine", self.info.device_adapters),
        }
        if "host" in self.info.tiers:
            text = "Adapters that are only in host memory"
            counted["num_cpu_loaded_lora_adapters"] = text, self._count("host")
        for name, (text, value) in counted.items():
            gauge = GaugeMetricFamily(f"vllm:{name}", text, labels=("model_name",))
            gauge.add_metric((self.base,), value)
            yield gauge

    def _count(self, tier: Tier) -> int:
        return sum(where == tier for where in self.state.resident.values())

    def _cache(self) -> Metric:
        cache = GaugeMetricFamily(
            "vllm:cache_config_info",
            "Always 1; labels give the KV cache's block size in tokens and its number of blocks",
            labels=("model_name", "block_size", "num_gpu_blocks"),
        )
        block = self.info.kv_block
        cache.add_metric((self.base, str(block), str(self.state.kv_capacity // block)), 1)
        return cache
