"""Reads the section `bases:` of the settings, which lists several bases for one server, each with own
settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from adapters import names
from server.config.limits import LIMITS
from server.config.schema import Option
from server.config.sections import EngineOptions
from server.config.values import Entries, Located, Raw, SettingsError, Size, format_raw, parse_value, within

UTILIZATION = "gpu_memory_utilization"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseOptions:
    """One base. A setting that is None here takes the value of the same name outside `bases`."""

    path: Path | None = None
    """Folder of the base in Hugging Face layout."""
    on_demand: bool = False
    """Load the base at its first request, and unload it once idle."""
    engine: EngineOptions | None = None
    """Engine that runs the base."""
    device: Literal["auto", "cpu", "directml", "webgpu", "windowsml"] | None = None
    """Device of the embedded engine."""
    dtype: Literal["auto", "fp16", "fp32"] | None = None
    """Number format of the embedded engine."""
    tool_parser: Literal["auto", "mistral", "hermes", "llama3_json", "json"] | None = None
    prefill_dtype: Literal["fp32", "bf16"] | None = None
    """Number format for prompts on the CPU."""
    quantize: Literal["none", "int8", "int4"] | None = None
    """Quantization of the base's weights in the embedded engine."""
    threads: int | None = None
    """Threads the engine computes with."""
    max_num_seqs: int | None = None
    """Maximum number of requests in a batch."""
    max_num_batched_tokens: int | None = None
    """Maximum tokens in a step."""
    prefill_chunk: int | None = None
    """Maximum prompt tokens of one request in a step."""
    max_model_len: int | None = None
    """Maximum context: tokens of prompt and answer together."""
    kv_cache_memory: Size | None = None
    """Memory for the KV cache, such as 2GiB."""
    prefix_caching: bool | None = None
    """Reuse the KV cache of a prompt's beginning."""
    adapters: tuple[str, ...] | None = None
    """Adapters of this base: PATH or NAME=PATH, each a folder in PEFT layout."""
    gpu_memory_utilization: float | None = None
    """vLLM's option of this name: the share of the GPU's memory that the base may take, 0 to 1."""


class DeclaredBases(Protocol):
    """The settings of a server that are checked against its bases."""

    @property
    def bases(self) -> Mapping[str, BaseOptions]:
        """The bases by name. See `Settings`."""
        ...

    @property
    def base_model(self) -> Path | None:
        """The folder of the only base. See `Settings`."""
        ...

    @property
    def served_model_name(self) -> Sequence[str]:
        """The setting `served_model_name`: the base's public names. See `Settings`."""
        ...

    @property
    def default_base(self) -> str | None:
        """The base for requests that do not name one. See `Settings`."""
        ...

    @property
    def max_loaded_bases(self) -> int | None:
        """Maximum number of bases in memory. See `Settings`."""
        ...

    @property
    def max_num_seqs(self) -> int | None:
        """Maximum number of requests in a batch. See `Settings`."""
        ...

    @property
    def max_num_batched_tokens(self) -> int | None:
        """The field of `Settings` of this name."""
        ...


def check_bases(settings: DeclaredBases) -> None:
    """Raise `SettingsError`, which names the setting, if the bases cannot be served together."""
    bases = settings.bases
    if not bases:
        for name in ("default_base", "max_loaded_bases"):
            if getattr(settings, name) is not None:
                raise SettingsError(
                    name, "needs several bases; list them under bases, or remove this setting"
                )
        return
    if settings.base_model is not None:
        raise SettingsError("base_model", "cannot be combined with bases; remove one of the two settings")
    if settings.served_model_name:
        raise SettingsError(
            "served_model_name",
            "works with a single base only; remove the setting, since each entry of bases has its own name",
        )
    seen: dict[str, str] = {}
    for name, options in bases.items():
        _check_name(name)
        if seen.setdefault(name.lower(), name) != name:
            raise SettingsError(
                "bases", f"{seen[name.lower()]!r} and {name!r} differ in case only; rename one of them"
            )
        if options.path is None:
            raise SettingsError(f"bases.{name}.path", "is missing; name the base's folder")
        for field, (least, most) in LIMITS.items():
            within(f"bases.{name}.{field}", getattr(options, field, None), least, most)
        within(f"bases.{name}.{UTILIZATION}", options.gpu_memory_utilization, 0.01, 1)
        seqs = options.max_num_seqs or settings.max_num_seqs
        tokens = options.max_num_batched_tokens or settings.max_num_batched_tokens
        check_batch(seqs, tokens, f"bases.{name}.")
    default = settings.default_base
    if default is not None and default.lower() not in seen:
        raise SettingsError(
            "default_base", f"{default!r} is not one of the bases; use one of {', '.join(bases)}"
        )
    always = [name for name, options in bases.items() if not options.on_demand]
    most = settings.max_loaded_bases
    if most is not None and len(always) >= most and len(always) < len(bases):
        raise SettingsError(
            "max_loaded_bases",
            f"{most} leaves no room for on_demand bases besides {', '.join(always)}; "
            f"give at least {len(always) + 1}, or set on_demand for more bases",
        )
    if most is not None and len(always) > most:
        raise SettingsError(
            "max_loaded_bases",
            f"{most} is below the number of bases without on_demand, {len(always)}; "
            "raise max_loaded_bases, or set on_demand for more bases",
        )


def check_batch(seqs: int | None, tokens: int | None, section: str = "") -> None:
    """Raise `SettingsError` if a step has fewer tokens than sequences."""
    if seqs is not None and tokens is not None and tokens < seqs:
        raise SettingsError(
            f"{section}max_num_batched_tokens",
            f"{tokens} is below max_num_seqs ({seqs}), but each sequence of a step needs a token; "
            f"give at least {seqs}",
        )


def _check_name(name: str) -> None:
    try:
        names.alias(name)
    except ValueError as error:
        raise SettingsError("bases", str(error).replace("alias", "base's name")) from None
    if name.lower() in ("blend", "none", "unknown"):
        raise SettingsError("bases", f"the base's name {name!r} is reserved: choose another")


def parse_sections(option: Option, raw: Raw | Entries, origin: str) -> Entries:
    """Parse sections by name from `raw`: NAME=PATH (repeatable), NAME={...}, or one YAML mapping.

    Raises `SettingsError` if `raw` is none of these.
    """
    if isinstance(raw, Entries):
        return raw
    from server.config.file import read_entries

    if isinstance(raw, str) and raw.lstrip().startswith("{"):
        return read_entries(raw, option, origin)
    found: dict[str, Mapping[str, Located]] = {}
    try:
        items = parse_value(tuple[str, ...], raw)
    except ValueError as error:
        raise SettingsError(option.name, f"{format_raw(raw)} {error}", origin) from None
    assert isinstance(items, tuple)
    for item in map(str, items):
        name, equals, rest = (part.strip() for part in item.partition("="))
        if not (name and equals and rest):
            raise SettingsError(option.name, f"{item!r} is not of the form NAME=PATH", origin)
        if name in found:
            raise SettingsError(option.name, f"names {name!r} twice", origin)
        if rest.startswith("{"):
            found |= read_entries(rest, option, origin, name).by_name
        else:
            found[name] = {"path": Located(rest, origin)}
    return Entries(found)


def expand_paths(bases: Mapping[str, BaseOptions], expand: Callable[[Path], Path]) -> dict[str, BaseOptions]:
    """A copy of `bases` with `expand` applied to every base's folder."""
    return {
        name: replace(options, path=expand(options.path)) if options.path is not None else options
        for name, options in bases.items()
    }
