"""The operator's options for vLLM, and their conversion to arguments of `AsyncEngineArgs`. Does not import
vllm.
"""

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
"""Default maximum number of different adapters in one batch. Each adapter slot takes GPU memory."""
HELD = 64
"""Default number of adapters that are held in host memory. Further adapters are loaded from disk on
demand.
"""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts for its option `max_lora_rank`, in ascending order."""

_OWNED: Mapping[str, str] = {
    "model": "use the setting base_model instead",
    "tokenizer": "OneSeek always uses the base's own tokenizer; remove the option",
    "skip_tokenizer_init": "grammars need the tokenizer; remove the option",
    "served_model_name": "use the setting served_model_name instead",
    "lora_modules": "use the setting adapters instead",
    "default_mm_loras": "OneSeek supports text only; remove the option",
    "api_key": "use the setting api_keys instead",
    "host": "use the setting host instead",
    "port": "use the setting port instead",
    "enable_log_requests": "use the settings log_requests and log_content instead",
}
"""Maps each option of vLLM that an operator cannot set in OneSeek to what to do instead."""

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
"""Maps each option of vLLM to the setting of OneSeek that means the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmOptions:
    """Options of the vLLM engine. An option that is None keeps vLLM's default."""

    base: Path
    base_name: str
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    kv_bytes: int | None = None
    prefix_caching: bool = True
    max_adapters: int | None = None
    """Maximum number of different adapters in one batch."""
    max_cpu_adapters: int | None = None
    """Maximum number of adapters held in host memory."""
    max_lora_rank: int | None = None
    max_queue: int = 256
    drain_seconds: float = 30.0
    extra: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further options of vLLM: maps the name of each to its value as YAML text."""


def prepare_environment(environ: MutableMapping[str, str], log_level: str) -> None:
    """Set environment variables for vLLM. Call this before vLLM is imported.

    Usage reports and downloads are switched off. vLLM's processes are spawned, since forked processes would
    share this process's sockets and threads. Variables that are set already are kept, except those for usage
    reports.
    """
    environ["VLLM_NO_USAGE_STATS"] = environ["DO_NOT_TRACK"] = "1"
    environ.setdefault("HF_HUB_OFFLINE", "1")
    environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    environ.setdefault("VLLM_LOGGING_LEVEL", log_level.upper())


def engine_args(
    options: VllmOptions, adapters: Sequence[Adapter], known: Mapping[str, Any]
) -> dict[str, Any]:
    """Build the arguments for `AsyncEngineArgs`. `known` maps the name of each of its fields to the field's
    type.

    The number of adapter slots and the largest rank follow from `adapters`, with a spare slot for replacing
    an adapter by a new version. Raises `SettingsError` for an option that vLLM does not have, that OneSeek
    sets itself, or whose value is not valid.
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
            raise SettingsError(
                f"engine.{name}",
                f"this option and the setting {_OURS[name]} mean the same; remove one of the two",
            )
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
        raise SettingsError(setting, f"this option of vLLM cannot be set in OneSeek: {_OWNED[name]}")
    if name not in known:
        raise SettingsError(setting, f"the installed vLLM has no such option{closest(name, known)}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingsError(
            setting, f"the value {text!r} is not valid YAML; use a value such as 2, true or {{a: b}}"
        ) from None
    try:
        return _typed(known[name], value)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            setting, f"vLLM rejects the value of this option: {' '.join(str(error).split())[:300]}"
        ) from None


def _typed(hint: Any, value: Any) -> Any:
    """Convert a mapping to vLLM's configuration class if the field's type (`hint`) is such a class."""
    for kind in (hint, *typing.get_args(hint)):
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            return kind(**value)
    return value
