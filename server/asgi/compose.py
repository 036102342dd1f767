"""Starting the server: each step says what it does, and the last one where the server answers."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from socket import socket
from typing import TextIO

from prometheus_client.registry import Collector
from starlette.applications import Starlette

from server.asgi.app import create_app, uvicorn_config
from server.asgi.http.descriptors import allow_connections
from server.asgi.http.wire import Wire
from server.asgi.listening import AnnouncingServer, bind
from server.asgi.starting import StartGuard
from server.config.environment import process_environment
from server.config.settings import Settings
from server.engines.base import Engine
from server.engines.kinds import choose_engine
from server.engines.setup import EngineSetup
from server.engines.supervised import SupervisedEngine
from server.errors import EngineError
from server.live.catalogue import Catalogue, open_base, open_catalogue, open_registry, provenance
from server.live.configured import fetch_configured, unfetched
from server.live.follower import FollowOptions
from server.live.priorities import Priorities
from server.live.runtime import Runtime
from server.metrics.metrics import Metrics
from server.serving.one_thread import OneThread
from server.serving.sampling_defaults import read_defaults
from server.serving.service import BaseService, open_service
from server.text.tokenizer import Tokenizer

MOST_LISTED = 32
"""Adapters that the start names."""
SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while another waits for it."""


def run_server(settings: Settings, guard: StartGuard) -> int:
    """Serve until told to stop; the process's exit code. Mistakes raise before anything listens.

    `guard` ends the start if a signal comes before the event loop runs.
    """
    # The engine's thread must not wait long for a busy event loop to let go of the interpreter.
    sys.setswitchinterval(SWITCH_SECONDS)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    narrator = Narrator(sys.stderr)
    for warning in settings.warnings:
        narrator(f"warning: {warning}")
    sockets = bind(settings.host, settings.port)
    try:
        return _serve(settings, sockets, narrator, guard)
    finally:
        for opened in sockets:
            opened.close()


def _serve(settings: Settings, sockets: list[socket], narrator: Narrator, guard: StartGuard) -> int:
    app, services = compose(settings, narrator)
    engines = [service.runtime.engine for service in services]
    wire = Wire(allow_connections(settings.max_connections, narrator), settings.body_memory)
    config = uvicorn_config(app, settings, wire)
    server = AnnouncingServer(config, narrator, engines, wire, settings.drain_delay)
    guard.hand_over()
    try:
        server.run(sockets)
    except asyncio.CancelledError:
        if not server.stopped:
            raise
    except SystemExit:  # uvicorn's way to end if the application did not start, which it has logged
        return 0 if guard.stopped else 1
    if server.stopped:
        guard.stopped = True
        return 0
    return 1 if server.engine_died or not server.started else 0


def compose(
    settings: Settings, narrator: Narrator, environ: MutableMapping[str, str] | None = None
) -> tuple[Starlette, list[BaseService]]:
    """The whole application that the settings lead to, and its services, not yet started.

    `environ` decides on the engine where the settings do not, and is prepared for it; the process's own, by
    default, is what vLLM reads. Raises what opening the catalogue and the engine does.
    """
    metrics, aside = Metrics(), OneThread()
    environ = process_environment() if environ is None else environ
    if missing := unfetched(settings):
        registry, base = open_registry(settings), open_base(settings)
        fetch_configured(settings, missing, registry, base, narrator, narrator.progress)
    services = [open_base_service(settings, open_catalogue(settings), metrics, aside, narrator, environ)]
    return create_app(settings, services, metrics, aside), services


def open_base_service(
    settings: Settings,
    catalogue: Catalogue,
    metrics: Metrics,
    aside: OneThread,
    narrator: Narrator,
    environ: MutableMapping[str, str],
) -> BaseService:
    """The service of a catalogue's base. Raises `SettingsError` and `EngineError`."""
    base, served = catalogue.base, catalogue.served
    narrator(f"base {base.name}: {base.reason}")
    for note in catalogue.notes:
        narrator(f"note: {note}")
    for warning in catalogue.warnings:
        narrator(f"warning: {warning}")
    try:
        tokenizer, defaults = Tokenizer.load(base.path), read_defaults(base.path)
    except ValueError as error:
        raise EngineError(f"{base.path}: {error}") from error
    router = catalogue.router  # settings of routing that lead nowhere end the start before a graph is built
    priorities = Priorities(served, settings.pinned_adapters, catalogue.configured, settings.routing.default)
    engine, collectors = open_engine(settings, catalogue, tokenizer, metrics, narrator, environ, priorities)
    priorities.check(engine.info.max_adapters)
    actives = [served.active(alias) for alias in served.aliases()]
    for adapter in (one for one in served.adapters() if one.problem is not None):
        narrator(f"error: {adapter.full_name} is damaged and answers 503: {adapter.problem}")
    aliases = [active.full_name for active in actives if active.problem is None]
    narrator(f"adapters: {_listed(aliases) or 'none; every question goes to the base'}")
    runtime = Runtime(
        name=served.base_name,
        engine=engine,
        served=served,
        router=router,
        tokenizer=tokenizer,
        metrics=metrics,
        priorities=priorities,
    )
    return open_service(settings, runtime, aside, defaults, _options(settings, catalogue), collectors)


def _listed(names: Sequence[str]) -> str:
    """The names, of very many the first and how many more there are."""
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _options(settings: Settings, catalogue: Catalogue) -> FollowOptions:
    return FollowOptions(
        home=settings.home,
        base=catalogue.base,
        seconds=settings.follow_registry,
        provenance=partial(provenance, settings) if settings.require_provenance else None,
        router=catalogue.make_router,
    )


def open_engine(
    settings: Settings,
    catalogue: Catalogue,
    tokenizer: Tokenizer,
    metrics: Metrics,
    narrator: Narrator,
    environ: MutableMapping[str, str],
    priorities: Priorities,
) -> tuple[Engine, Sequence[Collector]]:
    """The engine that the settings ask for, not yet started, and what it measures itself.

    Raises `SettingsError` and `EngineError`.
    """
    choice = choose_engine(settings.engine.kind, environ)
    if choice.warning is not None:
        narrator(f"warning: {choice.warning}")
    narrator(f"engine {choice.kind.name}: {choice.reason}")
    registry = catalogue.served
    setup = EngineSetup(
        base=catalogue.base.path,
        base_name=registry.base_name,
        base_digest=registry.base_digest,
        tokenizer=tokenizer,
        adapters=[adapter for adapter in registry.adapters() if adapter.problem is None],
        active=priorities.actives(),
        observer=metrics.steps(registry.base_name),
        narrate=narrator,
        environ=environ,
    )
    engine = SupervisedEngine(
        choice.kind.open(settings, setup),
        lambda: choice.kind.open(settings, setup),
        metrics.steps(registry.base_name),
        restarts=settings.restart_engine,
        step_timeout=settings.step_timeout,
    )
    return engine, choice.kind.collectors()


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
