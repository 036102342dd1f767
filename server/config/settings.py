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
from server.config.environment import expand_home, home_folder, process_environment
from server.config.external import ExternalModelOptions, parse_external_models
from server.config.hosts import AllowedHosts, is_loopback, parse_proxies
from server.config.limits import LIMITS
from server.config.origins import CorsOrigins
from server.config.schema import SECRET, Option, build, options_of
from server.config.sections import EngineOptions, RolloutOptions, RoutingOptions
from server.config.urls import check_urls
from server.config.values import Entries, Raw, SettingsError, Size, Tables, closest, within

PREFIX = "ONESEEK_"
CONFIG_FILE = "oneseek.yaml"
DEFAULT_ROOT = "lora_adapters"
"""Default folder to search for adapters; it may be missing."""
CONFIG_VARIABLE = PREFIX + "CONFIG"

BASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,255}")
"""Pattern of a base's public name. It excludes `:`, `@` and `=`, which have a meaning in `model`."""
_KUBERNETES_LINK = re.compile(PREFIX + r"(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_(TCP|UDP|SCTP)\w*)")


def default_home(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Where OneSeek keeps its state: `%LOCALAPPDATA%\\oneseek` on Windows, `~/.oneseek` elsewhere."""
    local = environ.get("LOCALAPPDATA")
    if platform == "win32" and local:
        return Path(local) / "oneseek"
    return home_folder(environ, platform) / ".oneseek"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a server. Relative paths are relative to the working directory."""

    host: str = "127.0.0.1"
    """Address to listen on. Use 0.0.0.0 to listen on every interface."""
    port: int = 8000
    """Port to listen on. 0 picks any free port."""
    base_model: Path | None = None
    """Folder of the base model in Hugging Face layout. Default: search the standard locations."""
    bases: Mapping[str, BaseOptions] = field(
        default_factory=dict[str, BaseOptions], metadata={"single": "base"}
    )
    """Several bases by name, instead of base_model. In the file, each can have its own settings."""
    default_base: str | None = None
    """Base that answers if a request names no other. Default: the first one listed under bases."""
    max_loaded_bases: int | None = None
    """Maximum number of bases in memory, including those that are always loaded. Default: all."""
    base_idle_seconds: float = 300.0
    """Unload an on_demand base after this many seconds without a request. 0 unloads it at once."""
    base_wait_seconds: float = 60.0
    """Seconds that a request waits for an on_demand base to load, before a 503 with Retry-After."""
    adapters: tuple[str, ...] = ()
    """More adapters to serve: PATH or NAME=PATH, where PATH is a PEFT folder or a pinned URL."""
    served_model_name: tuple[str, ...] = ()
    """Public names of the base. Answers carry the first one. Default: the name of its folder."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    """Engine that runs the base, and its options."""
    device: Literal["auto", "cpu", "directml", "webgpu", "windowsml"] = "cpu"
    """Device of the embedded engine. auto picks the best one that passes its self-test, else the CPU."""
    dtype: Literal["auto", "fp16", "fp32"] = "auto"
    """Number format of the embedded engine. auto: fp16 on a device, fp32 on the CPU (its only one)."""
    prefill_dtype: Literal["fp32", "bf16"] = "fp32"
    """Number format for prompts on the CPU. bf16 is faster on CPUs with AMX; it needs oneseek[openvino]."""
    quantize: Literal["none", "int8", "int4"] = "none"
    """Quantization of the base's weights in the embedded engine. none keeps float32."""
    threads: int | None = None
    """Threads that the engine computes with. Default: one for each core."""
    max_num_seqs: int | None = None
    """Maximum number of requests in a batch. Default: 32 with embedded; with vllm, vLLM's default."""
    max_num_batched_tokens: int | None = None
    """Maximum tokens in a step, prefill and decode together. Default: 512; with vllm, vLLM's default."""
    prefill_chunk: int | None = None
    """Maximum prompt tokens of one request in a step. Default: max_num_batched_tokens alone decides."""
    max_model_len: int | None = None
    """Maximum context: tokens of prompt and answer together. Default: the base's own maximum."""
    kv_cache_memory: Size | None = None
    """Memory for the KV cache, such as 2GiB. Default: a share of the memory that is free at the start."""
    max_adapters: int | None = None
    """Adapter slots in the engine; other adapters load when requested. Default: 64; with vllm, up to 16."""
    max_cpu_adapters: int | None = None
    """Maximum adapters in host memory, slots included. Default: max_adapters; with vllm, at least 64."""
    max_lora_rank: int | None = None
    """Largest LoRA rank that vLLM reserves room for. Default: that of the largest adapter at the start."""
    pinned_adapters: tuple[str, ...] = ()
    """Adapters to load first and never evict: an alias or alias@version each."""
    max_queue: int = 256
    """Maximum number of waiting requests. Beyond it, clients get 429 with Retry-After."""
    prefix_caching: bool = True
    """Reuse the KV cache of a prompt's beginning, such as a conversation's earlier turns."""
    max_body: Size = 4 * 1024 * 1024
    """Maximum size of a request's body."""
    max_bodies_memory: Size | None = None
    """Memory for the bodies of unanswered requests, beyond 64 KiB each. Default: 16 x max_body."""
    max_connections: int = 1000
    """Maximum number of connections. Beyond it, clients get 503; health probes are still answered."""
    default_max_tokens: int | None = None
    """Answer length in tokens if a request sets none. Default: the rest of the context; completions: 16."""
    tool_parser: Literal["auto", "mistral", "hermes", "llama3_json", "json"] = "auto"
    """Format in which the base writes tool calls. auto reads it from the chat template."""
    strict_fields: bool = False
    """Refuse requests with unknown fields (400), instead of listing those in X-OneSeek-Ignored."""
    step_timeout: float | None = 120.0
    """Seconds after which an unfinished step means that the engine hangs. `none` sets no limit."""
    restart_engine: int = 0
    """Restarts of a dead or hung engine per hour. 0: do not restart it; the server exits with status 1."""
    request_timeout: float | None = None
    """Per-request timeout in seconds, from its headers to the end of its answer. Default: no timeout."""
    drain_delay: float = 0.0
    """Seconds to keep listening after a stop signal, with /ready at 503. About 5 suits Kubernetes."""
    drain_seconds: float = 30.0
    """Seconds that running requests get to finish when the server stops."""
    api_keys: tuple[str, ...] = field(default=(), repr=False, metadata=SECRET)
    """API keys. Default: no authentication. Prefer the environment variable; `ps` shows flags."""
    admin_keys: tuple[str, ...] = field(default=(), repr=False, metadata=SECRET)
    """Keys with admin access (/admin, loading adapters) and API access. Default: no admin access."""
    metrics_keys: tuple[str, ...] = field(default=(), repr=False, metadata=SECRET)
    """Keys that can read /metrics and nothing else. If api_keys are set, only these and admin_keys can."""
    allowed_hosts: tuple[str, ...] = ()
    """Allowed Host headers, such as *.example.com. Default: on loopback only its own names, else any."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose X-Forwarded-For is trusted, such as 127.0.0.1."""
    cors_origins: tuple[str, ...] = ()
    """Web origins allowed by CORS, such as https://app.example.com, or * for any. Default: no CORS."""
    adapter_roots: tuple[str, ...] = (DEFAULT_ROOT,)
    """Folders from which clients may load adapters over HTTP, besides the registry's own folder."""
    adapter_urls: tuple[str, ...] = ()
    """URL prefixes from which clients may load adapters, such as s3://bucket/adapters. Default: none."""
    max_fetch_size: Size = 2 * 1024**3
    """Maximum size of an adapter that is fetched from a URL."""
    fetch_timeout: float = 600.0
    """Timeout in seconds for fetching an adapter from a URL."""
    require_provenance: bool = False
    """Serve only adapters that the ledger records. The server then needs a ledger that verifies."""
    ledger_public_key: Path | None = None
    """PEM file of the ledger's public key, kept elsewhere. Default: the one beside the ledger."""
    home: Path = field(default_factory=lambda: default_home(process_environment()))
    """Folder for OneSeek's state: registry, ledger, keys and built graphs."""
    follow_registry: float = 2.0
    """Seconds between checks for registry changes by other processes. 0 never checks."""
    log_level: Literal["critical", "error", "warning", "info", "debug"] = "info"
    """Log messages of this level and above."""
    log_format: Literal["auto", "text", "json"] = "auto"
    """Format of log lines. auto: text, except that requests are JSON unless logged to a terminal."""
    log_requests: bool = True
    """Log a line for each request to standard output (at level info), without prompt and answer."""
    log_content: bool = False
    """Log prompts and answers too."""
    otel: bool = False
    """Export traces and metrics by OpenTelemetry; set it up by OTEL_* variables. Needs oneseek[otel]."""
    routing: RoutingOptions = field(default_factory=RoutingOptions)
    """How to choose an adapter for a request that names none."""
    rollout: RolloutOptions = field(default_factory=RolloutOptions)
    """How to judge a canary or a shadow against the active version."""
    external_models: Tables = field(default_factory=dict[str, str])
    """OpenAI-compatible services to ask beside this server: NAME: {url, model, api_key_env, timeout}."""

    def __post_init__(self) -> None:
        if not self.host.strip():
            raise SettingsError(
                "host", "is empty; use 127.0.0.1 for this machine only, or 0.0.0.0 for every interface"
            )
        for name, (least, most) in LIMITS.items():
            within(name, getattr(self, name), least, most)
        within("max_bodies_memory", self.max_bodies_memory, self.max_body, None)
        if self.request_timeout is not None and self.request_timeout <= 0:
            raise SettingsError(
                "request_timeout",
                f"{self.request_timeout} is not above 0; give a number of seconds, or none for no timeout",
            )
        check_batch(self.max_num_seqs, self.max_num_batched_tokens)
        check_bases(self)
        most, held = self.max_adapters, self.max_cpu_adapters
        if held is not None and held < (most or 1):
            raise SettingsError(
                "max_cpu_adapters",
                f"{held} is below max_adapters ({most}), but host memory also holds every adapter in a slot; "
                "raise max_cpu_adapters, or leave it out",
            )
        if any(not name.strip() for name in self.pinned_adapters):
            raise SettingsError("pinned_adapters", "an entry is empty; give an alias, or remove the entry")
        for name in self.served_model_name:
            if not BASE_NAME.fullmatch(name):
                raise SettingsError(
                    "served_model_name",
                    f"{name!r} is not a valid name; use letters, digits, '.', '_', '-' and '/'",
                )
        self._check_keys()
        parse_external_models(self.external_models)
        for name, parse in (("allowed_hosts", AllowedHosts.parse), ("cors_origins", CorsOrigins.parse)):
            try:
                parse(getattr(self, name))
            except ValueError as error:
                raise SettingsError(name, str(error)) from None
        parse_proxies(self.trusted_proxies)
        if self.log_content and not self.log_requests:
            raise SettingsError(
                "log_content", "is true, but log_requests is false; set both to true, or log_content to false"
            )
        if any(not root.strip() for root in self.adapter_roots):
            raise SettingsError("adapter_roots", "a folder's name is empty; give a path, or remove the entry")
        check_urls(self.adapters, self.adapter_urls)

    def _check_keys(self) -> None:
        seen: dict[str, str] = {}
        for name in ("api_keys", "admin_keys", "metrics_keys"):
            for key in getattr(self, name):
                if not key or not key.isascii() or any(character.isspace() for character in key):
                    raise SettingsError(
                        name, "a key is empty, or has a space or a non-ASCII character; replace this key"
                    )
                if key.lower() == "none":
                    raise SettingsError(name, "'none' is not a key; for no keys, leave the setting out")
                if seen.setdefault(key, name) != name:
                    raise SettingsError(
                        name,
                        f"one of the keys is also in {seen[key]}; use different keys in the two settings",
                    )

    @property
    def external(self) -> Mapping[str, ExternalModelOptions]:
        """The parsed services of `external_models`, by lower-case name."""
        return parse_external_models(self.external_models)

    @property
    def body_memory(self) -> int:
        """Bytes that the bodies of all unanswered requests may hold together."""
        return self.max_bodies_memory or 16 * self.max_body

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings to show an operator before the server starts: risky or useless settings."""
        found = [
            f"adapter_roots: {root} does not exist; create the folder, or correct the path"
            for root in self.adapter_roots
            if root != DEFAULT_ROOT and not expand_home(root).is_dir()
        ]
        if not self.api_keys and not is_loopback(self.host):
            found.append(
                f"host {self.host} is reachable from other machines and no api_keys are set, so anyone can "
                "use "
                "the server; set api_keys"
            )
        if not self.api_keys and CorsOrigins.parse(self.cors_origins).everything:
            found.append(
                "cors_origins is * and no api_keys are set, so any web page opened on this machine can use "
                "the server; list the origins to allow, or set api_keys"
            )
        return tuple(found)


OPTIONS: tuple[Option, ...] = options_of(Settings)
"""Every setting, in order: the schema behind flags, environment, file and help."""


@dataclass(frozen=True, slots=True)
class ResolvedSettings:
    """Settings, together with the origin of each value."""

    settings: Settings
    origins: Mapping[str, str]
    """Maps each option path to the origin of its value: `flag --port`, `ONESEEK_PORT`, `oneseek.yaml:3` or
    `default`.
    """

    def value(self, option: Option) -> object:
        """The resolved value of `option`."""
        value: object = self.settings
        for name in option.path.split("."):
            value = getattr(value, name)
        return value

    def located(self, error: SettingsError) -> SettingsError:
        """`error` with the setting's public name and the origin of its value."""
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
            raise SettingsError(
                name,
                "Kubernetes set this variable for a Service, and it is not a setting of OneSeek; "
                "set enableServiceLinks: false in the pod's spec, or rename the Service",
            )
        if name not in variables:
            raise SettingsError(
                name,
                f"is not a setting of OneSeek{closest(name, [*variables, CONFIG_VARIABLE])}",
                "environment",
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
            raise SettingsError(path, f"is not a setting of OneSeek{closest(path, options)}", "flag")
    return {path: (raw, f"flag {options[path].flag}") for path, raw in flags.items()}
