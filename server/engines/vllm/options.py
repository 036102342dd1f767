"""What an operator decides about vLLM, as the arguments of its `AsyncEngineArgs`. Does not import vllm."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from adapters.lora.manifest import Adapter
from server.config.values import SettingsError, closest

MOST_SLOTS = 16
"""Adapters that one batch can mix if the settings name no number: each slot takes GPU memory."""
HELD = 64
"""Adapters held in host memory if the settings name no number; others are loaded when asked for."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for `max_lora_rank`."""

_OWNED: Mapping[str, str] = {
    "model": "name the base with base_model",
    "tokenizer": "the base's own tokenizer is used",
    "skip_tokenizer_init": "leave it out; grammars need the tokenizer",
    "served_model_name": "the base's folder names it",
    "lora_modules": "list adapters under adapters",
    "default_mm_loras": "only text is served",
    "api_key": "use api_keys",
    "host": "use host, outside engine",
    "port": "use port, outside engine",
    "enable_log_requests": "requests are logged by their ids only",
}
"""Options that would fight with OneSeek's own, and what to do instead."""

_OURS: Mapping[str, str] = {
    "max_num_seqs": "max_num_seqs",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "max_model_len": "max_model_len",
    "kv_cache_memory_bytes": "kv_cache_memory",
    "enable_prefix_caching": "prefix_caching",
    "max_loras": "max_adapters",
    "max_cpu_loras": "max_cpu_adapters",
    "max_lora_rank": "max_lora_rank",
}
"""vLLM's name → the setting of ours that says the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmOptions:
    """What an operator decides; None leaves a value to vLLM."""

    base: Path
    base_name: str
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    kv_bytes: int | None = None
    prefix_caching: bool = True
    max_adapters: int | None = None
    """Adapters that one batch can mix."""
    max_cpu_adapters: int | None = None
    """Adapters that are held at once, in host memory."""
    max_lora_rank: int | None = None
    max_queue: int = 256
    drain_seconds: float = 30.0
    extra: Mapping[str, str] = field(default_factory=dict[str, str])
    """vLLM's own options by its own names, each value as YAML text."""


def prepare_environment(environ: MutableMapping[str, str], log_level: str) -> None:
    """Set what vLLM reads from the environment, before it is imported.

    It reports nothing to anyone and downloads nothing. Its core is a process of its own making rather than a
    copy of this one, whose sockets and threads a copy would share. What is set already stays.
    """
    environ["VLLM_NO_USAGE_STATS"] = environ["DO_NOT_TRACK"] = "1"
    environ.setdefault("HF_HUB_OFFLINE", "1")
    environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    environ.setdefault("VLLM_LOGGING_LEVEL", log_level.upper())


def engine_args(
    options: VllmOptions, adapters: Sequence[Adapter], known: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments for `AsyncEngineArgs`, whose fields and their types are `known`.

    Slots and rank are sized by `adapters`, with one slot spare for a version that takes another's place.
    Raises `SettingsError` for an option that vLLM has not, that is not YAML, or that OneSeek decides.
    """
    extra = {name: _value(name, text, known) for name, text in options.extra.items()}
    args: dict[str, Any] = {
        "model": str(options.base),
        "served_model_name": options.base_name,
        "enable_lora": True,
        "enable_prefix_caching": options.prefix_caching,
        "shutdown_timeout": int(options.drain_seconds),
        "structured_outputs_config": _typed(known["structured_outputs_config"], {"backend": "guidance"}),
    }
    ours = {
        "max_num_seqs": options.max_num_seqs,
        "max_num_batched_tokens": options.max_num_batched_tokens,
        "max_model_len": options.max_model_len,
        "kv_cache_memory_bytes": options.kv_bytes,
        "max_loras": options.max_adapters,
        "max_cpu_loras": options.max_cpu_adapters,
        "max_lora_rank": options.max_lora_rank,
    }
    for name, value in ours.items():
        if value is None:
            continue
        if name in extra:
            raise SettingsError(f"engine.{name}", f"is set, and so is {_OURS[name]}; keep one of the two")
        args[name] = value
    args |= extra
    if args["enable_lora"]:
        args = _sized(adapters, args)
    return args


def _sized(adapters: Sequence[Adapter], args: dict[str, Any]) -> dict[str, Any]:
    slots = args.get("max_loras") or min(
        len(adapters) + 1, MOST_SLOTS, args.get("max_cpu_loras") or MOST_SLOTS
    )
    held = args.get("max_cpu_loras") or max(slots, HELD)
    largest = max((adapter.rank for adapter in adapters), default=16)
    rank = args.get("max_lora_rank") or next((rank for rank in RANKS if rank >= largest), RANKS[-1])
    return args | {"max_loras": slots, "max_cpu_loras": held, "max_lora_rank": rank}


def _value(name: str, text: str, known: Mapping[str, Any]) -> Any:
    setting = f"engine.{name}"
    if name in _OWNED:
        raise SettingsError(setting, f"is decided by OneSeek: {_OWNED[name]}")
    if name not in known:
        raise SettingsError(setting, f"is not an option of this vLLM{closest(name, known)}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingsError(setting, f"{text!r} is not YAML; write 2, true, {{a: b}}…") from None
    try:
        return _typed(known[name], value)
    except (TypeError, ValueError) as error:
        raise SettingsError(setting, f"does not fit: {' '.join(str(error).split())[:300]}") from None


def _typed(hint: Any, value: Any) -> Any:
    """A mapping where vLLM wants one of its configuration classes, as that class."""
    for kind in (hint, *typing.get_args(hint)):
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            return kind(**value)
    return value
