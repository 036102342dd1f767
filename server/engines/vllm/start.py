"""Opens the vLLM engine from the settings; importing this module does not import vLLM."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from prometheus_client.registry import Collector

from adapters.files.hashes import HashCache, hash_file
from adapters.files.weightfiles import every_safetensors, weight_files
from server.config.settings import Settings
from server.config.values import SettingsError
from server.engines.base import Engine
from server.engines.setup import EngineSetup
from server.engines.suitability import Suitability, count_gpus
from server.engines.vllm.options import VllmOptions, prepare_environment
from server.errors import EngineError
from server.metrics.collectors import VllmCollector

_METRICS = VllmCollector()


def judge(environ: Mapping[str, str]) -> Suitability:
    """Report that the vLLM engine suits this machine if vLLM is installed and an NVIDIA GPU is visible."""
    gpus = count_gpus(environ)
    if not gpus:
        return Suitability(False, "no NVIDIA GPU is visible")
    if importlib.util.find_spec("vllm") is None:
        remedy = "vLLM is not installed, so the GPU is not used; run: pip install 'oneseek[vllm]'"
        return Suitability(False, f"{gpus} NVIDIA GPU(s), but vLLM is not installed", remedy)
    return Suitability(True, f"{gpus} NVIDIA GPU(s)")


def open_engine(settings: Settings, setup: EngineSetup) -> Engine:
    """Create the vLLM engine for a base, without starting it. Raises `SettingsError` or `EngineError`."""
    _refuse_embedded_settings(settings)
    if importlib.util.find_spec("vllm") is None:
        raise SettingsError("engine.kind", "vLLM is not installed; run pip install 'oneseek[vllm]'")
    refuse_other_weights(setup.base)
    prepare_environment(setup.environ, settings.log_level)
    setup.narrate("loading vLLM and the base; this takes a minute or more")
    from server.engines.vllm.core import vllm_engine

    options = VllmOptions(
        base=setup.base,
        base_name=setup.base_name,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_model_len=settings.max_model_len,
        kv_bytes=settings.kv_cache_memory,
        prefix_caching=settings.prefix_caching,
        max_adapters=settings.max_adapters,
        max_cpu_adapters=settings.max_cpu_adapters,
        max_lora_rank=settings.max_lora_rank,
        max_queue=settings.max_queue,
        drain_seconds=settings.drain_seconds,
        extra=settings.engine.options,
    )
    engine = vllm_engine(options, setup.base_digest, setup.tokenizer, setup.adapters, observer=setup.observer)
    engine.hashes = HashCache(hash_file(settings.home))
    setup.narrate(f"vLLM's context length is {engine.info.context} tokens; starting its engine core")
    return engine


def refuse_other_weights(base: Path) -> None:
    """Raise `EngineError` if vLLM would read other weight files than those that the base's digest covers."""
    expected = {path.name for path in weight_files(base)}
    found = {name for name in every_safetensors(base) if not name.startswith("consolidated")}
    if found != expected:
        other = sorted(found ^ expected)[0]
        raise EngineError(
            f"{base}: the base's weights are {', '.join(sorted(expected)[:3])}, but vLLM would also read "
            f"{other}. Keep only one set of weight files in the folder, with its index file"
        )


def collectors() -> Sequence[Collector]:
    """Return the collectors of vLLM's own metrics. All vLLM engines in one process share them."""
    return (_METRICS,)


def _refuse_embedded_settings(settings: Settings) -> None:
    remedies = {
        "quantize": "set vLLM's option quantization under engine instead",
        "device": "set the environment variable CUDA_VISIBLE_DEVICES instead",
        "dtype": "set vLLM's option dtype under engine instead",
        "prefill_dtype": "set vLLM's option dtype under engine instead",
        "threads": "set environment variables such as OMP_NUM_THREADS instead",
        "prefill_chunk": "set vLLM's option long_prefill_token_threshold under engine instead",
    }
    plain = Settings()
    for name, remedy in remedies.items():
        value = getattr(settings, name)
        if value != getattr(plain, name):
            raise SettingsError(name, f"{value} applies to the embedded engine only, not to vLLM; {remedy}")
