"""Starting the server: each step says what it does, and the last one where the server answers."""

from __future__ import annotations

import importlib.util
import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from functools import partial
from socket import socket
from typing import TYPE_CHECKING, TextIO

from starlette.applications import Starlette

from server.asgi.app import create_app, uvicorn_config
from server.asgi.listening import AnnouncingServer, bind
from server.config.environment import process_environment
from server.config.settings import Settings
from server.config.values import SettingsError
from server.engines.base import Engine
from server.engines.choice import choose_engine
from server.errors import EngineError
from server.live.catalogue import Catalogue, open_catalogue, provenance
from server.live.follower import Follow
from server.metrics.engine_state import EngineInfo
from server.metrics.metrics import Metrics
from server.serving.sampling_defaults import read_defaults
from server.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # it loads ONNX Runtime
    from server.engines.embedded.launch.options import EmbeddedOptions

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while another waits for it."""


def run(settings: Settings) -> int:
    """Serve until told to stop; the process's exit code. Mistakes raise before anything listens."""
    # The engine's thread must not wait long for a busy event loop to let go of the interpreter.
    sys.setswitchinterval(SWITCH_SECONDS)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    say = Narrator(sys.stderr)
    for warning in settings.warnings:
        say(f"warning: {warning}")
    sockets = bind(settings.host, settings.port)
    try:
        return _serve(settings, sockets, say)
    finally:
        for opened in sockets:
            opened.close()


def _serve(settings: Settings, sockets: list[socket], say: Narrator) -> int:
    app, engine = compose(settings, say)
    server = AnnouncingServer(uvicorn_config(app, settings), say, engine)
    try:
        server.run(sockets)
    except SystemExit:  # uvicorn's way to end where the application did not start, which it has logged
        return 1
    return 1 if server.engine_died or not server.started else 0


def compose(
    settings: Settings, say: Narrator, environ: MutableMapping[str, str] | None = None
) -> tuple[Starlette, Engine]:
    """The whole application that the settings lead to, and the engine in it, not yet started.

    `environ` decides on the engine where the settings do not, and is prepared for it; the process's own, by
    default, is what vLLM reads. Raises what opening the catalogue and the engine does.
    """
    catalogue = open_catalogue(settings)
    say(f"base {catalogue.base.name}: {catalogue.base.reason}")
    for note in catalogue.notes:
        say(f"note: {note}")
    try:
        tokenizer, defaults = Tokenizer.load(catalogue.base.path), read_defaults(catalogue.base.path)
    except ValueError as error:
        raise EngineError(f"{catalogue.base.path}: {error}") from error
    metrics = Metrics(catalogue.base.name)
    environ = process_environment() if environ is None else environ
    engine = open_engine(settings, catalogue, tokenizer, metrics, say, environ)
    registry = catalogue.registry
    aliases = [registry.active(alias).full_name for alias in registry.aliases()]
    say(f"adapters: {', '.join(aliases) or 'none; every question goes to the base'}")
    base = catalogue.base.name
    router, follow = catalogue.router, _follow(settings, catalogue)
    app = create_app(settings, engine, registry, router, tokenizer, base, metrics, defaults, follow)
    return app, engine


def _follow(settings: Settings, catalogue: Catalogue) -> Follow:
    return Follow(
        home=settings.home,
        base=catalogue.base,
        seconds=settings.follow_registry,
        provenance=partial(provenance, settings),
        router=catalogue.make_router,
    )


def open_engine(
    settings: Settings,
    catalogue: Catalogue,
    tokenizer: Tokenizer,
    metrics: Metrics,
    say: Narrator,
    environ: MutableMapping[str, str],
) -> Engine:
    """The engine that the settings ask for, not yet started. Raises `SettingsError` and `EngineError`."""
    choice = choose_engine(settings.engine.kind, environ)
    if choice.warning is not None:
        say(f"warning: {choice.warning}")
    say(f"engine {choice.kind}: {choice.reason}")
    if choice.kind == "vllm":
        return _open_vllm(settings, catalogue, tokenizer, metrics, say, environ)
    return _open_embedded(settings, catalogue, tokenizer, metrics, say)


def _open_vllm(
    settings: Settings,
    catalogue: Catalogue,
    tokenizer: Tokenizer,
    metrics: Metrics,
    say: Narrator,
    environ: MutableMapping[str, str],
) -> Engine:
    _refuse_embedded_settings(settings)
    if importlib.util.find_spec("vllm") is None:
        raise SettingsError("engine.kind", "'vllm' is not installed here: pip install 'oneseek[vllm]'")
    from server.engines.vllm.options import VllmOptions, prepare_environment

    prepare_environment(environ, settings.log_level)
    say("loading vLLM; with the base, this takes a minute or more")
    from server.engines.vllm.core import vllm_engine

    options = VllmOptions(
        base=catalogue.base.path,
        base_name=catalogue.base.name,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_model_len=settings.max_model_len,
        kv_bytes=settings.kv_cache_memory,
        prefix_caching=settings.prefix_caching,
        max_queue=settings.max_queue,
        drain_seconds=settings.drain_seconds,
        extra=settings.engine.options,
    )
    registry = catalogue.registry
    engine = vllm_engine(options, registry.base_digest, tokenizer, registry.adapters(), observer=metrics)
    say(f"vLLM's context is {engine.info.context}; starting its engine core")
    return engine


def _refuse_embedded_settings(settings: Settings) -> None:
    remedies = {
        "quantize": "vLLM's own is quantization, under engine",
        "device": "vLLM finds its devices; CUDA_VISIBLE_DEVICES narrows them",
        "dtype": "vLLM's own is dtype, under engine",
        "prefill_dtype": "vLLM's own is dtype, under engine",
        "threads": "vLLM's own are environment variables, such as OMP_NUM_THREADS",
        "prefill_chunk": "vLLM's own is long_prefill_token_threshold, under engine",
    }
    plain = Settings()
    for name, remedy in remedies.items():
        value = getattr(settings, name)
        if value != getattr(plain, name):
            raise SettingsError(name, f"{value} is for the embedded engine; {remedy}")


def _open_embedded(
    settings: Settings, catalogue: Catalogue, tokenizer: Tokenizer, metrics: Metrics, say: Narrator
) -> Engine:
    if settings.engine.options:
        named = ", ".join(settings.engine.options)
        raise SettingsError("engine.options", f"{named}: for vLLM alone, and this is the embedded engine")
    from server.engines.embedded.runners.device.flavours import check_flavours, installed

    # Before anything loads ONNX Runtime: of two that share a folder, what loads is neither.
    check_flavours(None if settings.device == "auto" else settings.device, installed())
    from server.engines.embedded.launch.launch import embedded_engine

    registry = catalogue.registry
    engine = embedded_engine(
        catalogue.base.path,
        registry.base_digest,
        tokenizer,
        embedded_options(settings),
        observer=metrics,
        progress=say.progress(f"building the graph ({settings.quantize})"),
        adapters=[registry.active(alias) for alias in registry.aliases()],
        say=say,
    )
    _say_device(engine.info, settings, say)
    return engine


def embedded_options(settings: Settings) -> EmbeddedOptions:
    """What the settings say to the embedded engine."""
    from server.engines.embedded.launch.options import (
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
    )


def _say_device(info: EngineInfo, settings: Settings, say: Narrator) -> None:
    device = info.device
    assert device is not None
    if device.fallback is not None:
        say(f"warning: the CPU is used, not {device.fallback.device}: {device.fallback.message}")
    where = "the CPU" if device.name == "cpu" else f"{device.name}, whose logits are the CPU's"
    prompts = ", prompts in bf16" if settings.prefill_dtype == "bf16" else ""
    say(f"embedded on {where}; weights {settings.quantize}{prompts}, context {info.context}")


class Narrator:
    """Says one line for each step, with the seconds since the start; progress on one line of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._began = time.perf_counter()

    def __call__(self, line: str) -> None:
        """Print a step."""
        print(f"oneseek {time.perf_counter() - self._began:6.2f}s  {line}", file=self._stream, flush=True)

    def progress(self, what: str) -> Callable[[int, int], None]:
        """A callback of (done, in all): a moving percentage on a terminal, a line per quarter elsewhere."""
        shown = -1
        live = self._stream.isatty()

        def tell(done: int, total: int) -> None:
            nonlocal shown
            percent = 100 * done // max(1, total)
            if percent // (1 if live else 25) == shown:
                return
            shown = percent // (1 if live else 25)
            if not live:
                self(f"{what}: {percent}%")
                return
            bar = "#" * (percent // 4)
            self._stream.write(f"\r{what} [{bar:<25}] {percent:3d}%" + ("\n" if done >= total else ""))
            self._stream.flush()

        return tell
