"""Every setting of the server, and how one is found: flags > environment > oneseek.yaml > defaults.

The environment comes from `server.config.environment`. A setting is declared here once; the command line, the
environment, the file, `oneseek config` and the help are all made from these fields.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, cast

from server.config.bases import BaseOptions, check_bases, check_batch, expand_paths, parse_sections
from server.config.engine import EngineOptions
from server.config.environment import expand_home, home_folder, process_environment
from server.config.external import ExternalModelOptions, parse_external_models
from server.config.hosts import AllowedHosts, is_loopback
from server.config.limits import DAY, LIMITS
from server.config.origins import CorsOrigins
from server.config.schema import SECRET, Option, build, options_of
from server.config.urls import check_urls
from server.config.values import Entries, Raw, SettingsError, Size, Tables, closest, within

PREFIX = "ONESEEK_"
CONFIG_FILE = "oneseek.yaml"
DEFAULT_ROOT = "lora_adapters"
"""Where adapters are looked for by default; it need not be there."""
CONFIG_VARIABLE = PREFIX + "CONFIG"

BASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,255}")
"""A base's public name; `:`, `@` and `=` have a meaning of their own in `model`."""
_KUBERNETES_LINK = re.compile(PREFIX + r"(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_(TCP|UDP|SCTP)\w*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingOptions:
    """The `routing:` section: which adapter answers a request that names none."""

    threshold: float | None = None
    """Probability, from 0 to 1, from which an undecided text gets its likeliest language's adapter."""
    undecided: Literal["likeliest", "accept-language", "default", "base"] | None = None
    """What answers a text whose language is undecided; none leaves it to routing."""
    unsupported: Literal["base", "default"] | None = None
    """What answers a language that has no adapter; none leaves it to routing."""
    default: str | None = None
    """What answers when nothing else decides: an adapter's alias, or `base`."""
    languages: Mapping[str, str] = field(default_factory=dict[str, str])
    """Language code to adapter alias, such as sv=oneseek-7b-zero-sv; goes before what adapters say."""

    def __post_init__(self) -> None:
        if self.threshold is not None:
            within("routing.threshold", self.threshold, 0, 1)
        for code in self.languages:
            if not re.fullmatch(r"[a-z]{2,3}", code):
                raise SettingsError("routing.languages", f"{code!r} is not a language code such as 'sv'")


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOptions:
    """The `rollout:` section: when a canary or a shadow is worse than the active version."""

    automatic: bool = True
    """End a canary or shadow that is worse; no only measures it."""
    min_requests: int = 20
    """Answers of a version before it is judged."""
    error_margin: float = 0.02
    """Share of answers, 0.02 being two of a hundred, by which it may fail more than the active version."""
    latency_ratio: float = 2.0
    """How many times the active version's median times to and between tokens it may take."""
    window_seconds: float = 600.0
    """Seconds of answers that are compared."""

    def __post_init__(self) -> None:
        within("rollout.min_requests", self.min_requests, 1, 4096)
        within("rollout.error_margin", self.error_margin, 0, 1)
        within("rollout.latency_ratio", self.latency_ratio, 1, 1000)
        within("rollout.window_seconds", self.window_seconds, 1, DAY)


def default_home(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Where OneSeek keeps its state: `%LOCALAPPDATA%\\oneseek` on Windows, `~/.oneseek` elsewhere."""
    local = environ.get("LOCALAPPDATA")
    if platform == "win32" and local:
        return Path(local) / "oneseek"
    return home_folder(environ, platform) / ".oneseek"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server is started with. Relative paths are relative to the working directory."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every interface."""
    port: int = 8000
    """Port to listen on; 0 takes any free one."""
    base_model: Path | None = None
    """Folder of the base model in Hugging Face layout; none looks in the usual places."""
    bases: Mapping[str, BaseOptions] = field(
        default_factory=dict[str, BaseOptions], metadata={"single": "base"}
    )
    """Several bases, by name, in place of base_model; in the file, each with settings of its own."""
    default_base: str | None = None
    """The base that answers where nothing names another. Default: the first of the bases."""
    max_loaded_bases: int | None = None
    """Most bases in memory at once, those that are not on_demand included. Default: all of them."""
    base_idle_seconds: float = 300.0
    """Seconds without a request after which an on_demand base is unloaded; 0 unloads it at once."""
    base_wait_seconds: float = 60.0
    """Seconds that a request waits for an on_demand base, after which it gets 503 with Retry-After."""
    adapters: tuple[str, ...] = ()
    """Adapters beside the discovered ones: PATH or NAME=PATH, a folder in PEFT layout or a pinned URL."""
    served_model_name: tuple[str, ...] = ()
    """Public names of the base; answers carry the first. Default: the name of its folder."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    """What runs the base."""
    device: Literal["auto", "cpu", "directml", "webgpu"] = "cpu"
    """What the embedded engine computes on; auto takes the best that is there and works, else the CPU."""
    dtype: Literal["auto", "fp16", "fp32"] = "auto"
    """What the embedded engine computes in; auto: fp16 on a device, fp32 on the CPU, which has no other."""
    prefill_dtype: Literal["fp32", "bf16"] = "fp32"
    """What the CPU computes prompts in; bf16 is faster where it has AMX, and takes oneseek[openvino]."""
    quantize: Literal["none", "int8", "int4"] = "none"
    """Precision of the base's weights in the embedded engine; none keeps float32."""
    threads: int | None = None
    """Threads the engine computes with; none takes one for each core."""
    max_num_seqs: int | None = None
    """Most requests in one batch; none: 32 in the embedded engine, vLLM's own choice in vllm."""
    max_num_batched_tokens: int | None = None
    """Most tokens in one step, prefill and decode together; none: 512, or vLLM's own choice."""
    prefill_chunk: int | None = None
    """Most prompt tokens of one request in one step; none lets the step's budget decide."""
    max_model_len: int | None = None
    """Most tokens of prompt and answer together; none takes what the base was made for."""
    kv_cache_memory: Size | None = None
    """Memory for keys and values, such as 2GiB; none takes a part of what is free at start."""
    max_adapters: int | None = None
    """Most adapters in the engine at once; others are loaded when asked for. Default: 64; vllm: up to 16."""
    max_cpu_adapters: int | None = None
    """Most adapters in memory, those of max_adapters included. Default: no others; vllm: at least 64."""
    max_lora_rank: int | None = None
    """Largest rank that vllm makes room for; embedded takes any. Default: that of the largest adapter."""
    pinned_adapters: tuple[str, ...] = ()
    """Adapters that are loaded first and never evicted: aliases, or alias@version."""
    max_queue: int = 256
    """Most requests that wait; past it a client gets 429 with Retry-After."""
    prefix_caching: bool = True
    """Reuse the keys and values of a prompt's beginning, such as a conversation's history."""
    max_body: Size = 4 * 1024 * 1024
    """Largest request body."""
    max_bodies_memory: Size | None = None
    """Memory for all bodies of unanswered requests, the first 64 KiB of each apart; none: 16 x max_body."""
    max_connections: int = 1000
    """Most connections; past it a client gets 503 with Retry-After, and probes are still answered."""
    default_max_tokens: int | None = None
    """Answer length where a request names none; none: what is left of the context, or 16 for completions."""
    tool_parser: Literal["auto", "mistral", "hermes", "llama3_json", "json"] = "auto"
    """How the base writes calls of tools; auto: as its chat template shows."""
    strict_fields: bool = False
    """Refuse unknown fields of requests with 400, instead of naming them in X-OneSeek-Ignored."""
    step_timeout: float | None = 120.0
    """Seconds that one step of the engine may take before the engine counts as hung; none: no limit."""
    restart_engine: int = 0
    """Times an hour that an engine that died or hung is started again; 0 ends the server with status 1."""
    request_timeout: float | None = None
    """Seconds from a request's headers to the end of its answer, after which it is given up; none never."""
    drain_delay: float = 0.0
    """Seconds from the signal to stop in which /ready is 503 and the listener open; Kubernetes: about 5."""
    drain_seconds: float = 30.0
    """Seconds that running requests have to finish when the server stops."""
    api_keys: tuple[str, ...] = field(default=(), repr=False, metadata=SECRET)
    """Keys of which a client must present one; none: open to all. As a flag, a process list shows them."""
    admin_keys: tuple[str, ...] = field(default=(), repr=False, metadata=SECRET)
    """Keys that open /admin and loading of adapters, beside what an api key opens; none: closed to all."""
    metrics_keys: tuple[str, ...] = field(default=(), repr=False, metadata=SECRET)
    """Keys that open /metrics alone, for Prometheus. Default: with api_keys, admin_keys alone open it."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names to answer, such as *.example.com; * for any. Default: loopback's own there, else any."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may ask, such as https://app.example.com; * for any. Default: none (no CORS)."""
    adapter_roots: tuple[str, ...] = (DEFAULT_ROOT,)
    """Folders beneath which adapters may be named over HTTP; the registry's own is always one."""
    adapter_urls: tuple[str, ...] = ()
    """URLs beneath which adapters may be fetched over HTTP, such as s3://bucket/adapters. Default: none."""
    max_fetch_size: Size = 2 * 1024**3
    """Most bytes of an adapter that is fetched from a URL."""
    fetch_timeout: float = 600.0
    """Seconds that fetching an adapter from a URL may take."""
    require_provenance: bool = False
    """Serve only adapters that the ledger knows; a ledger that does not verify then stops the start."""
    ledger_public_key: Path | None = None
    """PEM file of the ledger's public key, kept apart from it; none takes the one beside the ledger."""
    home: Path = field(default_factory=lambda: default_home(process_environment()))
    """Folder of the registry, the ledger, the keys and the built graphs."""
    follow_registry: float = 2.0
    """Seconds between looks at the registry for what other processes add or promote; 0 never looks."""
    log_level: Literal["critical", "error", "warning", "info", "debug"] = "info"
    """Least severe messages to log."""
    routing: RoutingOptions = RoutingOptions()
    """Which adapter answers a request that names none."""
    rollout: RolloutOptions = field(default_factory=RolloutOptions)
    """When a canary or a shadow is worse than the active version."""
    external_models: Tables = field(default_factory=dict[str, str])
    """OpenAI-compatible services that a question may go to; NAME: {url, model, api_key_env, timeout}."""

    def __post_init__(self) -> None:
        if not self.host.strip():
            raise SettingsError("host", "is empty; use 127.0.0.1 for this machine alone, 0.0.0.0 for all")
        for name, (least, most) in LIMITS.items():
            within(name, getattr(self, name), least, most)
        within("max_bodies_memory", self.max_bodies_memory, self.max_body, None)
        if self.request_timeout is not None and self.request_timeout <= 0:
            raise SettingsError(
                "request_timeout", f"{self.request_timeout} is not above 0; for no limit use none"
            )
        check_batch(self.max_num_seqs, self.max_num_batched_tokens)
        check_bases(self)
        most, held = self.max_adapters, self.max_cpu_adapters
        if held is not None and held < (most or 1):
            problem = f"{held} is below max_adapters ({most}), which are in memory too"
            raise SettingsError("max_cpu_adapters", f"{problem}; raise it, or leave it out")
        if any(not name.strip() for name in self.pinned_adapters):
            raise SettingsError("pinned_adapters", "a name is empty; give an alias, or leave it out")
        for name in self.served_model_name:
            if not BASE_NAME.fullmatch(name):
                problem = f"{name!r} is not a name; use letters, digits, '.', '_', '-' and '/'"
                raise SettingsError("served_model_name", problem)
        self._check_keys()
        parse_external_models(self.external_models)
        try:
            AllowedHosts.parse(self.allowed_hosts)
        except ValueError as error:
            raise SettingsError("allowed_hosts", str(error)) from None
        try:
            CorsOrigins.parse(self.cors_origins)
        except ValueError as error:
            raise SettingsError("cors_origins", str(error)) from None
        if any(not root.strip() for root in self.adapter_roots):
            raise SettingsError("adapter_roots", "a folder is empty; name it, or leave it out")
        check_urls(self.adapters, self.adapter_urls)

    def _check_keys(self) -> None:
        seen: dict[str, str] = {}
        for name in ("api_keys", "admin_keys", "metrics_keys"):
            for key in getattr(self, name):
                if not key or not key.isascii() or any(character.isspace() for character in key):
                    raise SettingsError(name, "a key is empty or holds a space or a character beyond ASCII")
                if key.lower() == "none":
                    raise SettingsError(name, "'none' is not a key; for no keys, leave the setting out")
                if seen.setdefault(key, name) != name:
                    problem = f"one of them is in {seen[key]} too; make a key of its own for each"
                    raise SettingsError(name, problem)

    @property
    def external(self) -> Mapping[str, ExternalModelOptions]:
        """The services of `external_models`, by lower-case name."""
        return parse_external_models(self.external_models)

    @property
    def body_memory(self) -> int:
        """Bytes that the bodies of all unanswered requests may hold together."""
        return self.max_bodies_memory or 16 * self.max_body

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should know before the server starts."""
        found = [
            f"adapter_roots: {root} is not there, so it holds no adapters; make it, or correct it"
            for root in self.adapter_roots
            if root != DEFAULT_ROOT and not expand_home(root).is_dir()
        ]
        if not self.api_keys and not is_loopback(self.host):
            found.append(
                f"host {self.host} is reachable from other machines and no api_keys are set: anyone may ask"
            )
        if not self.api_keys and CorsOrigins.parse(self.cors_origins).everything:
            found.append(
                "cors_origins is * and no api_keys are set: any page that a browser here opens may ask; "
                "list the origins that should"
            )
        return tuple(found)


OPTIONS: tuple[Option, ...] = options_of(Settings)
"""Every setting, in order; the one schema behind flags, environment, file and help."""


@dataclass(frozen=True, slots=True)
class ResolvedSettings:
    """Settings, and for each option path where its value came from."""

    settings: Settings
    origins: Mapping[str, str]
    """Such as `flag --port`, `ONESEEK_PORT`, `oneseek.yaml:3`, `default`."""

    def value(self, option: Option) -> object:
        """The value of one option."""
        value: object = self.settings
        for name in option.path.split("."):
            value = getattr(value, name)
        return value

    def located(self, error: SettingsError) -> SettingsError:
        """`error` by the name that people know, with the origin of the value that it is about."""
        return _located(error, self.origins)


def resolve_settings(
    flags: Mapping[str, Raw] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    config: Path | None = None,
    platform: str = sys.platform,
) -> ResolvedSettings:
    """Settings from `flags` (by option path), the environment, the file and the defaults, in this order.

    The file is `config`, else what `ONESEEK_CONFIG` names, else `oneseek.yaml` in the working directory if
    it is there. Raises `SettingsError` for an unknown name on any surface and for a value that does not fit.
    """
    environ = process_environment() if environ is None else environ
    layers = [_file_values(config, environ), _environment_values(environ), _flag_values(flags or {})]
    found: dict[str, tuple[Raw | Entries, str]] = {"home": (str(default_home(environ, platform)), "default")}
    for layer in layers:
        found |= layer
    for option in OPTIONS:
        if option.inner and option.path in found:
            found[option.path] = parse_sections(option, *found[option.path]), found[option.path][1]
    values = {option.path: option.parse(*found[option.path]) for option in OPTIONS if option.path in found}
    if "bases" in values:
        bases = cast("Mapping[str, BaseOptions]", values["bases"])
        values["bases"] = expand_paths(bases, lambda path: expand_home(path, environ))
    values = {
        path: expand_home(value, environ) if isinstance(value, Path) else value
        for path, value in values.items()
    }
    origins = {option.path: found.get(option.path, (None, "default"))[1] for option in OPTIONS}
    try:
        return ResolvedSettings(build(Settings, values), MappingProxyType(origins))
    except SettingsError as error:
        raise _located(error, origins) from None


def _located(error: SettingsError, origins: Mapping[str, str]) -> SettingsError:
    section = error.name.partition(".")[0]
    if section == "bases" and error.origin is None:
        return SettingsError(error.name, error.problem, origins["bases"])
    names = {error.name, f"{section}.options"} if "." in error.name else {error.name}
    option = next((option for option in OPTIONS if names & {option.path, option.name}), None)
    if option is None:
        option = next((one for one in OPTIONS if one.path == section and one.hint == Tables), None)
    if option is None or error.origin is not None:
        return error
    inside = option.path.endswith(".options") or option.hint == Tables
    name = error.name if inside else option.name
    return SettingsError(name, error.problem, origins[option.path])


def _file_values(config: Path | None, environ: Mapping[str, str]) -> dict[str, tuple[Raw | Entries, str]]:
    from server.config.file import read_file

    named = config or (
        expand_home(environ[CONFIG_VARIABLE], environ) if environ.get(CONFIG_VARIABLE) else None
    )
    path = named or Path(CONFIG_FILE)
    if named is None and not path.exists():
        return {}
    return {name: (value.raw, value.origin) for name, value in read_file(path, OPTIONS).items()}


def _environment_values(environ: Mapping[str, str]) -> dict[str, tuple[Raw | Entries, str]]:
    variables = {option.variable(PREFIX): option for option in OPTIONS}
    found: dict[str, tuple[Raw | Entries, str]] = {}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE:
            continue
        if _KUBERNETES_LINK.fullmatch(name) or (name == PREFIX + "PORT" and "://" in text):
            remedy = "set enableServiceLinks: false in the pod's spec, or name the Service otherwise"
            raise SettingsError(name, f"comes from a Kubernetes Service, not from you; {remedy}")
        if name not in variables:
            raise SettingsError(
                name, f"is not a setting{closest(name, [*variables, CONFIG_VARIABLE])}", "environment"
            )
        if not text and variables[name].secret:  # a script's variable that has no value
            raise SettingsError(variables[name].name, "is set but empty; unset it, or give a key", name)
        if text:
            found[variables[name].path] = (text, name)
    return found


def _flag_values(flags: Mapping[str, Raw]) -> dict[str, tuple[Raw | Entries, str]]:
    options = {option.path: option for option in OPTIONS}
    for path in flags:
        if path not in options:
            raise SettingsError(path, f"is not a setting{closest(path, options)}", "flag")
    return {path: (raw, f"flag {options[path].flag}") for path, raw in flags.items()}
