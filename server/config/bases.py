"""Read the section `bases:` of the settings. It lists several bases for one server, each with its own
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
from server.config.values import Entries, Located, Raw, SettingsError, Size, format_raw, list_pairs, within

UTILIZATION = "gpu_memory_utilization"
_NAMES = (
    ("an alias of an adapter", "a base's name"),
    ("choose an alias", "choose a name"),
    ("another alias", "another name"),
    ("the alias", "the base's name"),
)
"""Phrases in messages about an adapter's alias, and what they are in a message about a base's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseOptions:
    """Settings of one base. A setting that is None takes the server's value, from outside the section
    `bases`.
    """

    path: Path | None = None
    """Folder of the base in Hugging Face layout."""
    on_demand: bool = False
    """Load the base at its first request, and unload it after base_idle_seconds without a request."""
    engine: EngineOptions | None = None
    """Engine that runs the base."""
    device: Literal["auto", "cpu", "directml", "webgpu", "windowsml"] | None = None
    """Device of the embedded engine."""
    dtype: Literal["auto", "fp16", "fp32"] | None = None
    """Number format in which the embedded engine computes."""
    tool_parser: Literal["auto", "mistral", "hermes", "llama3_json", "json"] | None = None
    prefill_dtype: Literal["fp32", "bf16"] | None = None
    """Number format for computing prompts (prefill) on the CPU."""
    quantize: Literal["none", "int8", "int4"] | None = None
    """Quantization of the base's weights in the embedded engine."""
    threads: int | None = None
    """Number of threads that the engine computes with."""
    max_num_seqs: int | None = None
    """Maximum number of requests in a batch."""
    max_num_batched_tokens: int | None = None
    """Maximum number of tokens in an engine step, prefill and decode together."""
    prefill_chunk: int | None = None
    """Maximum number of prompt tokens of one request in an engine step."""
    max_model_len: int | None = None
    """Maximum context: tokens of prompt and answer together."""
    kv_cache_memory: Size | None = None
    """Memory for the KV cache, such as 2GiB."""
    prefix_caching: bool | None = None
    """Reuse the KV cache of a prompt's beginning for later prompts that begin alike."""
    adapters: tuple[str, ...] | None = None
    """Adapters of this base: PATH or NAME=PATH, each a folder in PEFT layout."""
    gpu_memory_utilization: float | None = None
    """vLLM's option of this name: the share of the GPU's memory that the base may take, 0 to 1."""


class DeclaredBases(Protocol):
    """The fields of `Settings` that `check_bases` reads."""

    @property
    def bases(self) -> Mapping[str, BaseOptions]:
        """Maps each base's name to its settings. See `Settings`."""
        ...

    @property
    def base_model(self) -> Path | None:
        """Folder of the base, if there is only one. See `Settings`."""
        ...

    @property
    def served_model_name(self) -> Sequence[str]:
        """The setting `served_model_name`: the base's public names. See `Settings`."""
        ...

    @property
    def default_base(self) -> str | None:
        """Name of the base for requests that do not name one. See `Settings`."""
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
        """Maximum number of tokens in an engine step. See `Settings`."""
        ...


def check_bases(settings: DeclaredBases) -> None:
    """Raise `SettingsError` if the bases in the settings cannot be served together. The error names the
    setting.
    """
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
        problem = "needs a server with one base; each of bases is served under its own name"
        raise SettingsError("served_model_name", problem)
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
        remedy = f"give at least {len(always) + 1}, or set on_demand for more bases"
        raise SettingsError(
            "max_loaded_bases",
            f"{most} leaves no room for on_demand bases besides {', '.join(always)}; {remedy}",
        )
    if most is not None and len(always) > most:
        raise SettingsError(
            "max_loaded_bases",
            f"{most} is below the number of bases without on_demand ({len(always)}); "
            "raise max_loaded_bases, or set on_demand for more bases",
        )


def check_batch(seqs: int | None, tokens: int | None, section: str = "") -> None:
    """Raise `SettingsError` if an engine step may have fewer tokens than a batch has sequences."""
    if seqs is not None and tokens is not None and tokens < seqs:
        problem = f"{tokens} is below max_num_seqs ({seqs}); give at least a token for each sequence"
        raise SettingsError(f"{section}max_num_batched_tokens", problem)


def _check_name(name: str) -> None:
    try:
        names.alias(name)
    except ValueError as error:
        problem = str(error)
        for adapters, ours in _NAMES:
            problem = problem.replace(adapters, ours)
        raise SettingsError("bases", problem) from None
    if name.lower() in ("blend", "none", "unknown"):
        raise SettingsError("bases", f"the base's name {name!r} is reserved: choose another")


def parse_sections(option: Option, raw: Raw | Entries, origin: str) -> Entries:
    """Parse named sections of the settings from `raw`: NAME=PATH (repeatable), NAME={...}, or one YAML
    mapping.

    Raises `SettingsError` if `raw` has none of these forms.
    """
    if isinstance(raw, Entries):
        return raw
    from server.config.file import read_entries

    if isinstance(raw, str) and raw.lstrip().startswith("{"):
        return read_entries(raw, option, origin)
    found: dict[str, Mapping[str, Located]] = {}
    try:
        items = list_pairs(raw)
    except ValueError as error:
        raise SettingsError(option.name, f"{format_raw(raw)} {error}", origin) from None
    for item in items:
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
    """Return a copy of `bases` with the function `expand` applied to each base's folder."""
    return {
        name: replace(options, path=expand(options.path)) if options.path is not None else options
        for name, options in bases.items()
    }
