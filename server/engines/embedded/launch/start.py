"""Opens the embedded engine from the server's settings. Importing this module does not load ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from server.config.settings import Settings
from server.config.values import SettingsError
from server.engines.base import Engine
from server.engines.setup import EngineSetup, Narration
from server.engines.suitability import Suitability
from server.metrics.engine_state import EngineInfo

if TYPE_CHECKING:
    from server.engines.embedded.launch.options import EmbeddedOptions


def judge(environ: Mapping[str, str]) -> Suitability:
    """Return that the embedded engine can run on this machine, which is true of any machine."""
    return Suitability(True)


def open_engine(settings: Settings, setup: EngineSetup) -> Engine:
    """Create the embedded engine for the base model in `setup`, without starting it.

    Raises `SettingsError` or `EngineError`.
    """
    if settings.engine.options:
        named = ", ".join(settings.engine.options)
        raise SettingsError(
            "engine.options",
            f"{named} can be set for vLLM only, but the engine is embedded; remove these options, or set "
            "engine.kind to vllm",
        )
    from server.engines.embedded.runners.device.flavours import check_flavours, find_installed

    # Check before ONNX Runtime is imported: two flavours in one folder overwrite each other's files.
    check_flavours(None if settings.device == "auto" else settings.device, find_installed())
    from server.engines.embedded.launch.launch import embedded_engine

    engine = embedded_engine(
        setup.base,
        setup.base_digest,
        setup.tokenizer,
        embedded_options(settings),
        observer=setup.observer,
        progress=setup.narrate.progress(
            f"building the ONNX graph of the base ({_weights(settings)} weights)"
        ),
        adapters=setup.active,
        say=setup.narrate,
    )
    _narrate_device(engine.info, settings, setup.narrate)
    return engine


def embedded_options(settings: Settings) -> EmbeddedOptions:
    """Convert the server's settings to options of the embedded engine."""
    from adapters.files.hashes import hash_file
    from server.engines.embedded.launch.options import (
        DEFAULT_ADAPTERS,
        DEFAULT_BATCHED_TOKENS,
        DEFAULT_NUM_SEQS,
        EmbeddedOptions,
    )

    seqs = settings.max_num_seqs or DEFAULT_NUM_SEQS
    return EmbeddedOptions(
        graphs=settings.home / "graphs",
        device=settings.device,
        dtype=None if settings.dtype == "auto" else settings.dtype,
        prefill_dtype=settings.prefill_dtype,
        quantize=settings.quantize,
        threads=settings.threads,
        max_num_seqs=seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens or max(seqs, DEFAULT_BATCHED_TOKENS),
        prefill_chunk=settings.prefill_chunk,
        max_model_len=settings.max_model_len,
        kv_bytes=settings.kv_cache_memory,
        max_queue=settings.max_queue,
        prefix_caching=settings.prefix_caching,
        max_adapters=settings.max_adapters or DEFAULT_ADAPTERS,
        max_cpu_adapters=settings.max_cpu_adapters,
        hashes=hash_file(settings.home),
    )


def _narrate_device(info: EngineInfo, settings: Settings, narrate: Narration) -> None:
    device = info.device
    assert device is not None
    if device.fallback is not None:
        narrate(
            f"warning: the engine uses the CPU instead of {device.fallback.device}: {device.fallback.message}"
        )
    where = "the CPU" if device.name == "cpu" else f"{device.name}, which passed its self-test"
    prompts = ", prompts in bf16" if settings.prefill_dtype == "bf16" else ""
    narrate(
        f"the embedded engine runs on {where}; weights {_weights(settings)}{prompts}, "
        f"context length {info.context} tokens"
    )


def _weights(settings: Settings) -> str:
    """Return a word that tells the operator how the weights are stored: `unquantized`, `int8` or `int4`."""
    return "unquantized" if settings.quantize == "none" else settings.quantize
