"""All settings of the server, and how a value is found: flags > environment > oneseek.yaml > defaults.

Environment variables come from `server.config.environment`. A setting is declared here once: the command
line, the environment, the file, `oneseek config` and the help are all generated from these fields.
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
"""Default folder in which adapters are searched. It may be missing."""
CONFIG_VARIABLE = PREFIX + "CONFIG"

BASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,255}")
"""Pattern of a base's public name. It excludes `:`, `@` and `=`, which have a meaning in a request's field
`model`.
"""
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
    """Base for requests that do not name one. Default: the first one listed under bases."""
    max_loaded_bases: int | None = None
    """Maximum number of bases in memory, including those that are always loaded. Default: all."""
    base_idle_seconds: float = 300.0
    """Unload an on_demand base after this many seconds without a request. 0 unloads it at once."""
    base_wait_seconds: float = 60.0
    """Seconds that a request waits for an on_demand base to load, before a 503 with Retry-After."""
    adapters: tuple[str, ...] = ()
    """Adapters to serve besides the registry's: PATH or NAME=PATH (a PEFT folder or a pinned URL)."""
    served_model_name: tuple[str, ...] = ()
    """Public names of the base, for `model`. Answers have the first one. Default: its folder's name."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    """Engine that runs the base, and its options."""
    device: Literal["auto", "cpu", "directml", "webgpu", "windowsml"] = "cpu"
    """Device of the embedded engine. auto picks the best one that passes its self-test, else the CPU."""
    dtype: Literal["auto", "fp16", "fp32"] = "auto"
    """Number format of the embedded engine. auto: fp16 on a device; the CPU always uses fp32."""
    prefill_dtype: Literal["fp32", "bf16"] = "fp32"
    """Number format of prefill on the CPU. bf16 is faster on CPUs with AMX; it needs oneseek[openvino]."""
    quantize: Literal["none", "int8", "int4"] = "none"
    """Quantization of the base's weights in the embedded engine. none keeps float32."""
    threads: int | None = None
    """Number of threads that the engine computes with. Default: one for each core."""
    max_num_seqs: int | None = None
    """Maximum number of requests in a batch. Default: 32 with embedded; with vllm, vLLM's default."""
    max_num_batched_tokens: int | None = None
    """Maximum tokens in an engine step, prefill and decode together. Default: 512; with vllm, vLLM's
    default.
    """
    prefill_chunk: int | None = None
    """Maximum prompt tokens of one request in an engine step. Default: limited by max_num_batched_tokens
    only.
    """
    max_model_len: int | None = None
    """Maximum context: tokens of prompt and answer together. Default: the base's own maximum."""
    kv_cache_memory: Size | None = None
    """Memory for the KV cache, such as 2GiB. Default: a share of the memory that is free at the start."""
    max_adapters: int | None = None
    """Adapter slots in the engine; other adapters load when requested. Default: 64; with vllm, up to 16."""
    max_cpu_adapters: int | None = None
    """Maximum adapters in host memory, including the slots. Default: max_adapters; with vllm, at least 64."""
    max_lora_rank: int | None = None
    """Largest LoRA rank that vLLM reserves memory for. Default: the largest rank found at the start."""
    pinned_adapters: tuple[str, ...] = ()
    """Adapters to load first and never evict: an alias or alias@version each."""
    max_queue: int = 256
    """Maximum number of waiting requests. If more arrive, they get 429 with Retry-After."""
    prefix_caching: bool = True
    """Reuse the KV cache of a prompt's beginning, such as a conversation's earlier messages."""
    max_body: Size = 4 * 1024 * 1024
    """Maximum size of a request's body."""
    max_bodies_memory: Size | None = None
    """Memory for all unanswered requests' bodies, not counting 64 KiB of each. Default: 16 x max_body."""
    max_connections: int = 1000
    """Maximum number of connections. If more arrive, they get 503; health probes are still answered."""
    default_max_tokens: int | None = None
    """Maximum answer tokens if a request sets none. Default: the rest of the context; completions: 16."""
    tool_parser: Literal["auto", "mistral", "hermes", "llama3_json", "json"] = "auto"
    """Format in which the base writes tool calls. auto reads it from the chat template."""
    strict_fields: bool = False
    """Answer 400 to requests with unknown fields, instead of naming the fields in X-OneSeek-Ignored."""
    step_timeout: float | None = 120.0
    """Seconds after which an unfinished engine step means that the engine hangs. `none` sets no limit."""
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
    """Keys that can only read /metrics. If api_keys are set, it needs one of these or of admin_keys."""
    allowed_hosts: tuple[str, ...] = ()
    """Allowed Host headers, such as *.example.com. Default: on loopback only loopback names, else any."""
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
    """PEM file of the ledger's public key, if kept elsewhere. Default: public.pem in the ledger's folder."""
    home: Path = field(default_factory=lambda: default_home(process_environment()))
    """Folder for OneSeek's state: registry, ledger, keys and built graphs."""
    follow_registry: float = 2.0
    """Seconds between checks for registry changes by other processes. 0 never checks."""
    log_level: Literal["critical", "error", "warning", "info", "debug"] = "info"
    """Log messages of this level and above."""
    log_format: Literal["auto", "text", "json"] = "auto"
    """Format of log lines. auto: text, but lines for requests are JSON if they do not go to a terminal."""
    log_requests: bool = True
    """Log a line for each request to standard output (at level info), without prompt and answer."""
    log_content: bool = False
    """Log the prompts and answers of requests too."""
    otel: bool = False
    """Export traces and metrics with OpenTelemetry, set up by OTEL_* variables. Needs oneseek[otel]."""
    routing: RoutingOptions = field(default_factory=RoutingOptions)
    """How to choose an adapter for a request that names none."""
    rollout: RolloutOptions = field(default_factory=RolloutOptions)
    """How to judge a canary or a shadow against the active version."""
    external_models: Tables = field(default_factory=dict[str, str])
    """OpenAI-compatible services that requests can name: NAME: {url, model, api_key_env, timeout}."""

    def __post_init__(self) -> None:
        if not self.host.strip():
            problem = "is empty; use 127.0.0.1 for this machine only, or 0.0.0.0 for every interface"
            raise SettingsError("host", problem)
        for name, (least, most) in LIMITS.items():
            within(name, getattr(self, name), least, most)
        within("max_bodies_memory", self.max_bodies_memory, self.max_body, None)
        if self.request_timeout is not None and self.request_timeout <= 0:
            problem = f"{self.request_timeout} is not above 0; give seconds, or none for no timeout"
            raise SettingsError("request_timeout", problem)
        check_batch(self.max_num_seqs, self.max_num_batched_tokens)
        check_bases(self)
        most, held = self.max_adapters, self.max_cpu_adapters
        if held is not None and held < (most or 1):
            problem = f"{held} is below max_adapters ({most}), and adapters in slots count too"
            raise SettingsError("max_cpu_adapters", f"{problem}; raise max_cpu_adapters, or leave it out")
        if any(not name.strip() for name in self.pinned_adapters):
            raise SettingsError("pinned_adapters", "an entry is empty; give an alias, or remove the entry")
        for name in self.served_model_name:
            if not BASE_NAME.fullmatch(name):
                problem = f"{name!r} is not a name; use letters, digits, '.', '_', '-' and '/'"
                raise SettingsError("served_model_name", problem)
        self._check_keys()
        parse_external_models(self.external_models)
        for name, parse in (("allowed_hosts", AllowedHosts.parse), ("cors_origins", CorsOrigins.parse)):
            try:
                parse(getattr(self, name))
            except ValueError as error:
                raise SettingsError(name, str(error)) from None
        parse_proxies(self.trusted_proxies)
        if self.log_content and not self.log_requests:
            problem = "true needs log_requests to be true as well; set both, or neither"
            raise SettingsError("log_content", problem)
        if any(not root.strip() for root in self.adapter_roots):
            raise SettingsError("adapter_roots", "a folder's name is empty; give a path, or remove the entry")
        check_urls(self.adapters, self.adapter_urls)

    def _check_keys(self) -> None:
        seen: dict[str, str] = {}
        for name in ("api_keys", "admin_keys", "metrics_keys"):
            for key in getattr(self, name):
                if not key or not key.isascii() or any(character.isspace() for character in key):
                    problem = "a key is empty, or holds a space or a non-ASCII character; replace it"
                    raise SettingsError(name, problem)
                if key.lower() == "none":
                    raise SettingsError(name, "'none' is not a key; to use no keys, leave the setting out")
                if seen.setdefault(key, name) != name:
                    problem = f"a key is also in {seen[key]}; use a different key for each of the two"
                    raise SettingsError(name, problem)

    @property
    def external(self) -> Mapping[str, ExternalModelOptions]:
        """The external services, parsed from the setting `external_models`, by name in lower case."""
        return parse_external_models(self.external_models)

    @property
    def named_tool_parser(self) -> str | None:
        """The format of tool calls that `tool_parser` names; None to read it from the chat template."""
        return None if self.tool_parser == "auto" else self.tool_parser

    @property
    def body_memory(self) -> int:
        """Maximum total size in bytes of the bodies of all unanswered requests."""
        return self.max_bodies_memory or 16 * self.max_body

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about risky or useless settings, to show before the server starts."""
        found = [
            f"adapter_roots: {root} does not exist; create the folder, or correct the path"
            for root in self.adapter_roots
            if root != DEFAULT_ROOT and not expand_home(root).is_dir()
        ]
        if not self.api_keys and not is_loopback(self.host):
            found.append(
                f"host {self.host} is reachable from other machines, and without api_keys anyone can use the "
                "server; set api_keys"
            )
        if not self.api_keys and CorsOrigins.parse(self.cors_origins).everything:
            found.append(
                "cors_origins is * and no api_keys are set, so any web page opened on this machine can use "
                "the server; list the origins to allow, or set api_keys"
            )
        return tuple(found)


OPTIONS: tuple[Option, ...] = options_of(Settings)
"""All settings, in order. Flags, environment variables, keys of the file and help are made from these
options.
"""


@dataclass(frozen=True, slots=True)
class ResolvedSettings:
    """The settings, with the origin of each value: flag, environment, file or default."""

    settings: Settings
    origins: Mapping[str, str]
    """Maps each option path to the origin of its value: `flag --port`, `ONESEEK_PORT`, `oneseek.yaml:3` or
    `default`.
    """

    def value(self, option: Option) -> object:
        """Return the value of the setting `option`."""
        value: object = self.settings
        for name in option.path.split("."):
            value = getattr(value, name)
        return value

    def located(self, error: SettingsError) -> SettingsError:
        """Return `error` with the setting's public name and the origin of its value added."""
        return _located(error, self.origins)


def resolve_settings(
    flags: Mapping[str, Raw] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    config: Path | None = None,
    platform: str = sys.platform,
) -> ResolvedSettings:
    """Return the settings from `flags` (by option path), environment, file and defaults, in this order of
    precedence.

    The file is `config`, else the one that `ONESEEK_CONFIG` names, else `oneseek.yaml` in the working
    directory if it exists. Raises `SettingsError` for an unknown flag, variable or key, and for an invalid
    value.
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
            remedy = "set enableServiceLinks: false in the pod's spec, or rename the Service"
            raise SettingsError(
                name, f"Kubernetes set this variable for a Service; it is not a setting; {remedy}"
            )
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
