"""One way to make each engine with the limits that a test wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from adapters.lora.manifest import Adapter
from adapters.lora.weights import ModelShape
from server.asgi.ray.arguments import replica_queue
from server.asgi.ray.host import EngineHost
from server.engines.base import Engine, StepObserver
from server.engines.embedded.engine import EmbeddedEngine
from server.engines.embedded.launch.launch import embedded_engine
from server.engines.embedded.launch.options import EmbeddedOptions
from server.engines.embedded.model.cache import prepare
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.device.plan import device_limits
from server.engines.embedded.runners.device.providers import PROVIDERS, Provider
from server.engines.embedded.runners.device.runner import DeviceRunner
from server.engines.vllm.options import VllmOptions
from server.text.tokenizer import Tokenizer
from tests.server.engines.ray.local import LocalEngine, LocalReplicas, make_host

BASE_DIGEST = "sha256:" + "0" * 64
VLLM_BLOCK = 32
"""Tokens of one block of vLLM's KV cache: the least that its attention on the CPU takes."""

ROOMY = 32 * 256
"""Tokens of a step that holds any prompts whole: where a prompt that has a seed is computed in parts, vLLM's
worker for the CPU asks its random generator for an offset, which only a GPU's has, and the core dies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What the tests of the contract may limit."""

    max_num_seqs: int = 32
    max_queue: int = 2000
    kv_tokens: int = 32 * 256
    max_adapters: int = 4
    max_model_len: int | None = None
    prefix_caching: bool = True


def embedded(
    base: Path,
    scratch: Path,
    known: Sequence[Adapter],
    limits: EngineLimits,
    observer: StepObserver | None = None,
) -> Engine:
    options = EmbeddedOptions(
        graphs=scratch / "graphs",
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=max(64, limits.max_num_seqs),
        max_queue=limits.max_queue,
        max_adapters=limits.max_adapters,
        kv_tokens=limits.kv_tokens,
        max_model_len=limits.max_model_len,
        prefix_caching=limits.prefix_caching,
        threads=2,
    )
    return embedded_engine(base, BASE_DIGEST, Tokenizer.load(base), options, observer=observer)


def on_device(
    provider: Provider,
    base: Path,
    scratch: Path,
    known: Sequence[Adapter],
    limits: EngineLimits,
    observer: StepObserver | None = None,
) -> Engine:
    """The embedded engine with the runner for devices; given the CPU, that stands in for a device."""
    graph = prepare(base, scratch / "graphs", BASE_DIGEST, variant=PORTABLE)
    context = limits.max_model_len or graph.config.context
    bounds = device_limits(
        graph.config,
        graph.dtype,
        context=context,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=max(64, limits.max_num_seqs),
        prefill_chunk=64,
        prefix_caching=limits.prefix_caching,
        kv_bytes=None,
        kv_tokens=limits.kv_tokens,
    )
    return EmbeddedEngine(
        open_runner=lambda: DeviceRunner(graph, provider, bounds.rows, context, 64),
        shape=ModelShape.read(base),
        limits=bounds,
        tokenizer=Tokenizer.load(base),
        base_digest=BASE_DIGEST,
        vocabulary=graph.config.vocabulary,
        max_queue=limits.max_queue,
        max_adapters=limits.max_adapters,
        observer=observer,
    )


def vllm(
    base: Path,
    scratch: Path,
    known: Sequence[Adapter],
    limits: EngineLimits,
    observer: StepObserver | None = None,
) -> Engine:
    # Only where it is asked for: importing it takes seconds, and most environments lack it.
    from server.engines.vllm.core import vllm_engine

    options = VllmOptions(
        base=base,
        base_name="tiny",
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=ROOMY,
        max_queue=limits.max_queue,
        max_model_len=limits.max_model_len,
        prefix_caching=limits.prefix_caching,
        extra={
            "dtype": "float32",
            "enforce_eager": "true",
            "block_size": str(VLLM_BLOCK),
            "num_gpu_blocks_override": str(limits.kv_tokens // VLLM_BLOCK + 1),  # one block is never used
            "max_loras": str(limits.max_adapters),
            "max_cpu_loras": str(limits.max_adapters),
        },
    )
    return vllm_engine(options, BASE_DIGEST, Tokenizer.load(base), known, observer=observer)


def remote(
    base: Path,
    scratch: Path,
    known: Sequence[Adapter],
    limits: EngineLimits,
    observer: StepObserver | None = None,
    *,
    replicas: int = 1,
) -> LocalEngine:
    """The engine of an ingress, over replicas in this process that run the embedded one."""
    own = replace(limits, max_queue=replica_queue(limits.max_queue, limits.max_num_seqs, replicas))

    def host(name: str) -> EngineHost:
        return make_host(name, embedded(base, scratch, known, own), limits.max_num_seqs)

    return LocalEngine(LocalReplicas(host, replicas), limits.max_queue)


ENGINES: dict[str, Callable[..., Engine]] = {
    "embedded": embedded,
    "device": partial(on_device, PROVIDERS["cpu"]),
    "webgpu": partial(on_device, PROVIDERS["webgpu"]),
    "vllm": vllm,
    "remote": remote,
}
"""Name as in `--engine` → how it is made, not yet started: base, a folder to write to, adapters, limits."""
