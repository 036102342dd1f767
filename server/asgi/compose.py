"""Starts the server: builds its parts from the settings, listens, and prints a line about each step."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Generator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from socket import socket
from typing import TextIO

from prometheus_client.registry import Collector
from starlette.applications import Starlette

from routing.selection import split_base
from server.asgi.app import create_app, uvicorn_config
from server.asgi.http.descriptors import allow_connections
from server.asgi.http.wire import Wire
from server.asgi.listening import AnnouncingServer, bind
from server.asgi.notify import ServiceNotifier
from server.asgi.starting import StartGuard
from server.config.each_base import each_base, name_base
from server.config.environment import process_environment
from server.config.settings import Settings
from server.config.values import SettingsError
from server.engines.base import Engine
from server.engines.kinds import choose_engine
from server.engines.loaded_bases import LoadedBases
from server.engines.ondemand import DemandLimits, OnDemandEngine
from server.engines.setup import EngineSetup
from server.engines.supervised import SupervisedEngine
from server.engines.together import PlannedBase, plan_together
from server.errors import EngineError
from server.live.bases.deciding import place_of
from server.live.bases.neighbours import Neighbour, Neighbours
from server.live.catalogue import Catalogue, open_base, open_catalogues, open_registry, provenance
from server.live.configured import fetch_configured, unfetched
from server.live.follow_options import FollowOptions
from server.live.runtime import Runtime
from server.live.slots.priorities import Priorities
from server.metrics.engine_state import EngineInfo
from server.metrics.metrics import Metrics
from server.serving.one_thread import OneThread
from server.serving.sampling_defaults import read_defaults
from server.serving.service import DEFAULT_BATCH, BaseService, open_service
from server.telemetry.observer import RequestObserver
from server.telemetry.records import log_to, start_line
from server.telemetry.start import open_observers
from server.text.tokenizer import Tokenizer

MOST_LISTED = 32
"""Maximum number of adapters to name in the line about adapters that the server prints at its start."""
OpenedEngine = tuple[Engine, Sequence[Collector]]
"""An engine that is open but not started, and the collectors of its own metrics."""
SWITCH_SECONDS = 0.0005
"""Python's thread switch interval in seconds: short, so that the engine's thread soon gets the
interpreter.
"""


def run_server(settings: Settings, guard: StartGuard) -> int:
    """Run the server until a signal stops it. Returns the exit code.

    Errors in the configuration are raised before the server listens. `guard` aborts the start if a signal
    arrives before the event loop runs.
    """
    # The engine's thread must not wait long for a busy event loop to let go of the interpreter.
    sys.setswitchinterval(SWITCH_SECONDS)
    as_json = settings.log_format == "json"
    log_to(sys.stderr, settings.log_level, as_json=as_json)
    narrator, notifier = Narrator(sys.stderr, as_json=as_json), ServiceNotifier.take()
    for warning in settings.warnings:
        narrator(f"warning: {warning}")
    sockets = bind(settings.host, settings.port)
    try:
        return _serve(settings, sockets, narrator, guard, notifier)
    finally:
        for opened in sockets:
            opened.close()


def _serve(
    settings: Settings,
    sockets: list[socket],
    narrator: Narrator,
    guard: StartGuard,
    notifier: ServiceNotifier,
) -> int:
    observers = open_observers(settings, process_environment())
    app, services = compose(settings, narrator, observers=observers)
    engines = [service.runtime.engine for service in services]
    wire = Wire(allow_connections(settings.max_connections, narrator), settings.body_memory)
    config = uvicorn_config(app, settings, wire)
    server = AnnouncingServer(config, narrator, engines, wire, settings.drain_delay, notifier)
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
    settings: Settings,
    narrator: Narrator,
    environ: MutableMapping[str, str] | None = None,
    root: Path | None = None,
    observers: Sequence[RequestObserver] = (),
    remote: OpenedEngine | None = None,
) -> tuple[Starlette, list[BaseService]]:
    """Build the application and its services (one for each base) from the settings, without starting them.

    `remote` is an engine in other processes; it runs the only base, and no engine is opened in this process.

    `environ` (default: the process's environment) is used to choose the engine if the settings do not name
    one, and is changed for vLLM, which reads it. Adapters are searched under `root` (default: the working
    directory). `observers` are called for every request. Raises the errors of opening the catalogue and the
    engine.
    """
    metrics, aside = Metrics(), OneThread()
    environ = process_environment() if environ is None else environ
    _fetch(settings, narrator)
    catalogues = open_catalogues(settings, root)
    first, *_ = catalogues
    others = [Neighbour(catalogue.base, catalogue.served) for catalogue in catalogues]
    loaded = LoadedBases(settings.max_loaded_bases, sum(not one.own.on_demand for one in catalogues))
    services: list[BaseService] = []
    planned = [_planned(catalogue, environ) for catalogue in catalogues]
    if remote is not None:
        fitted = [planned[0].settings]
    else:
        fitted = plan_together(planned, settings.max_loaded_bases, narrator)
    for index, (found, own_settings) in enumerate(zip(catalogues, fitted, strict=True)):
        catalogue = replace(found, own=replace(found.own, settings=own_settings))
        neighbours = Neighbours([other for place, other in enumerate(others) if place != index])
        catalogue.served.guard = neighbours.guard
        own = metrics.of_base(catalogue.base.name) if len(catalogues) > 1 else metrics
        with _named(catalogue.own.name, settings):
            services.append(
                open_base_service(catalogue, own, aside, narrator, environ, loaded, neighbours, remote)
            )
    return create_app(settings, services, metrics, aside, first.routing, observers), services


def _fetch(settings: Settings, narrator: Narrator) -> None:
    """Download the adapters that the settings name by URL and that are not in the registry yet."""
    for own in each_base(settings):
        with _named(own.name, settings):
            if missing := unfetched(own.settings):
                registry, base = open_registry(settings), open_base(settings, name=own.name)
                fetch_configured(settings, missing, registry, base, narrator, narrator.progress)


@contextmanager
def _named(base: str | None, settings: Settings) -> Generator[None]:
    """Name the base in errors that the block raises. If `base` is None, the server's `settings` list no
    bases, and errors stay as they are.
    """
    try:
        yield
    except SettingsError as error:
        if base is None:
            raise
        raise name_base(error, base, settings) from None
    except EngineError as error:
        if base is None:
            raise
        raise EngineError(f"base {base}: {error}") from error


def _planned(catalogue: Catalogue, environ: Mapping[str, str]) -> PlannedBase:
    served = catalogue.served
    return PlannedBase(
        name=catalogue.base.name,
        kind=choose_engine(catalogue.own.settings.engine.kind, environ).kind.name,
        path=catalogue.base.path,
        settings=catalogue.own.settings,
        adapters=[active for active in map(served.active, served.aliases()) if active.problem is None],
        on_demand=catalogue.own.on_demand,
    )


def open_base_service(
    catalogue: Catalogue,
    metrics: Metrics,
    aside: OneThread,
    narrator: Narrator,
    environ: MutableMapping[str, str],
    loaded: LoadedBases,
    neighbours: Neighbours,
    remote: OpenedEngine | None = None,
) -> BaseService:
    """Open the service of one base, with its engine. If `remote` is given, that engine runs the base.

    Raises `SettingsError` and `EngineError`.
    """
    settings, base, served = catalogue.own.settings, catalogue.base, catalogue.served
    narrator(f"base {base.name}: {base.reason}")
    for note in catalogue.notes:
        narrator(f"note: {note}")
    for warning in catalogue.warnings:
        narrator(f"warning: {warning}")
    try:
        tokenizer = Tokenizer.load(base.path, tool_parser=settings.named_tool_parser)
        defaults = read_defaults(base.path)
    except ValueError as error:
        raise EngineError(f"{base.path}: {error}") from error
    router = catalogue.router  # settings of routing that lead nowhere end the start before a graph is built
    priorities = Priorities(served, _pinned(catalogue), catalogue.configured, settings.routing.default)
    engine, collectors = remote or open_engine(
        settings, catalogue, tokenizer, metrics, narrator, environ, priorities
    )
    priorities.check(engine.info.max_adapters)
    demand: OnDemandEngine | None = None
    if catalogue.own.on_demand:
        demand = open_on_demand(
            settings, catalogue, tokenizer, metrics, environ, loaded, priorities, engine.info
        )
        narrator(f"base {base.name} will load at its first request (on_demand)")
    actives = [served.active(alias) for alias in served.aliases()]
    for adapter in (one for one in served.adapters() if one.problem is not None):
        narrator(
            f"error: adapter {adapter.full_name} is damaged, so requests for it get 503: {adapter.problem}"
        )
    aliases = [active.full_name for active in actives if active.problem is None]
    narrator(f"adapters: {_listed(aliases) or 'none; the base answers every request'}")
    runtime = Runtime(
        name=served.base_name,
        engine=demand or engine,
        served=served,
        router=router,
        tokenizer=tokenizer,
        metrics=metrics,
        priorities=priorities,
        on_demand=demand,
    )
    options = _options(settings, catalogue, neighbours)
    return open_service(settings, runtime, aside, defaults, options, collectors)


def _pinned(catalogue: Catalogue) -> tuple[str, ...]:
    """Return this base's entries of `pinned_adapters`. The default base also gets names that no base
    knows.
    """
    names = catalogue.routing.names()
    owned = [(place_of(name, names), name) for name in catalogue.own.settings.pinned_adapters]
    known = [split_base(name)[1] for place, name in owned if place == catalogue.index]
    unknown = [name for place, name in owned if place is None and catalogue.index == 0]
    return (*known, *unknown)


def _listed(names: Sequence[str]) -> str:
    """Join the names with commas. Of a long list, name the first `MOST_LISTED` and count the others."""
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def open_on_demand(
    settings: Settings,
    catalogue: Catalogue,
    tokenizer: Tokenizer,
    metrics: Metrics,
    environ: MutableMapping[str, str],
    loaded: LoadedBases,
    priorities: Priorities,
    info: EngineInfo,
) -> OnDemandEngine:
    """Return an engine with the properties `info` that loads its base at a request and unloads it when
    idle.
    """
    quiet = Narrator(StringIO())

    def reopen() -> Engine:
        engine, _ = open_engine(settings, catalogue, tokenizer, metrics, quiet, environ, priorities)
        return engine

    limits = DemandLimits(
        idle_seconds=settings.base_idle_seconds,
        wait_seconds=settings.base_wait_seconds,
        most_waiting=settings.max_queue + (settings.max_num_seqs or DEFAULT_BATCH),
    )
    observer = metrics.loads_of(catalogue.base.name)
    return OnDemandEngine(catalogue.base.name, info, reopen, loaded, observer, limits)


def _options(settings: Settings, catalogue: Catalogue, neighbours: Neighbours) -> FollowOptions:
    return FollowOptions(
        home=settings.home,
        base=catalogue.base,
        seconds=settings.follow_registry,
        provenance=partial(provenance, settings) if settings.require_provenance else None,
        router=catalogue.make_router,
        neighbours=neighbours,
        contested=catalogue.routing.describe_contested,
    )


def open_engine(
    settings: Settings,
    catalogue: Catalogue,
    tokenizer: Tokenizer,
    metrics: Metrics,
    narrator: Narrator,
    environ: MutableMapping[str, str],
    priorities: Priorities,
) -> OpenedEngine:
    """Open the engine that the settings choose, without starting it. Returns it with its metric collectors.

    Raises `SettingsError` and `EngineError`.
    """
    choice = choose_engine(settings.engine.kind, environ)
    if choice.warning is not None:
        narrator(f"warning: {choice.warning}")
    narrator(f"using the engine {choice.kind.name}: {choice.reason}")
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
    """Prints the steps of the server's start, each with the seconds since the start, and progress bars."""

    def __init__(self, stream: TextIO, *, as_json: bool = False) -> None:
        self._stream = stream
        self._as_json = as_json
        self._began = time.perf_counter()

    def __call__(self, line: str) -> None:
        """Print one line, with the seconds since the start."""
        seconds = time.perf_counter() - self._began
        shown = start_line(line, seconds) if self._as_json else f"oneseek {seconds:6.2f}s  {line}"
        print(shown, file=self._stream, flush=True)

    def progress(self, what: str) -> Callable[[int, int], None]:
        """Return a callback (done, total) that shows how far `what` is: a bar on a terminal, or a line for
        each quarter elsewhere.
        """
        shown = -1
        live = self._stream.isatty() and not self._as_json

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
