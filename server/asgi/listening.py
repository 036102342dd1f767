"""Opens the listening sockets, and shuts the server down: no new requests are accepted, running ones may
finish for a while, the rest fail, and the process exits.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from server.asgi.http.descriptors import DescriptorWatch
from server.asgi.http.protocol import BoundedProtocol
from server.asgi.http.wire import Wire
from server.asgi.memory import Trimmer
from server.asgi.notify import ServiceNotifier
from server.asgi.starting import FORCE_SECONDS, end_after, end_now
from server.engines.base import Engine
from server.errors import EngineError

LAST_WORDS = 5
"""Seconds for which streams that are still running after `drain_seconds` can send a last event."""
LOOK_TICKS = 10
"""Ticks (0.1 s each) between checks of memory and file descriptors."""
LAST_SECONDS = 1.0
"""Seconds for which running streams can send a last event after a second signal."""
DEAD_SECONDS = 5.0
"""Seconds for which a server whose engine has died still answers as not ready, so that probes and clients
notice.
"""

log = logging.getLogger("oneseek.server")


def bind(host: str, port: int) -> list[socket.socket]:
    """Return sockets bound to every address of `host`, not yet listening. Port 0 takes any free port.

    Raises `OSError` with a complete message if an address cannot be bound.
    """
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            opened = socket.socket(family, kind, protocol)
            sockets.append(opened)
            try:
                _bind(opened, address)
            except OSError as error:
                # `localhost` names ::1 too, on machines that have no IPv6.
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                missing = error
                sockets.pop().close()
        if missing is not None and not sockets:
            raise missing
    except OSError as error:
        for opened in sockets:
            opened.close()
        why = (error.strerror or str(error)).lower()
        raise OSError(f"the server cannot listen on {host}:{port}: {why}; {_remedy(error)}") from error
    return sockets


def _bind(opened: socket.socket, address: tuple[object, ...]) -> None:
    if os.name == "posix":  # elsewhere it would let two servers share a port
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    elif hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # and without this, another program could take it over
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    opened.bind(address)


def _remedy(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "stop the program that uses the port, or choose another --port"
    if error.errno == errno.EACCES:
        return "choose a --port above 1023"
    return "choose another --host"


class AnnouncingServer(uvicorn.Server):
    """uvicorn's server, which also prints its address when it is ready, and shuts down gracefully.

    At a signal, the server keeps listening for `drain_delay` seconds, but refuses new work. Then it closes
    the listening sockets and gives running requests `drain_seconds`. After that, or at a second signal, the
    engines are closed, and requests that still run get an error. A signal during startup aborts it. If an
    engine dies, the server logs this, is not ready for `DEAD_SECONDS`, and exits.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        say: Callable[[str], None],
        engines: Sequence[Engine],
        wire: Wire,
        drain_delay: float = 0.0,
        notifier: ServiceNotifier | None = None,
    ) -> None:
        super().__init__(config)
        self._say = say
        self._notifier = notifier or ServiceNotifier()
        self._engines = engines
        self._wire = wire
        self._delay = drain_delay
        self._died_at: float | None = None
        self._drain = config.timeout_graceful_shutdown or 0
        config.timeout_graceful_shutdown = LAST_WORDS
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._stop_at: float | None = None
        """When to close the listener, in seconds of `time.monotonic()`; None before a signal."""
        self._hurried = False
        self._trimmer = Trimmer()
        self._descriptors = DescriptorWatch()
        self._aborting: asyncio.Task[None] | None = None
        logging.getLogger("uvicorn.error").addFilter(_in_brief)

    @property
    def stopped(self) -> bool:
        """True if a signal has requested the shutdown."""
        return self._stop_at is not None

    @property
    def engine_died(self) -> bool:
        """True if the server exits because an engine has died."""
        return self._died_at is not None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start uvicorn's server, then print the address."""
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        await super().startup(sockets)
        if not self.started:
            return
        # What the start made stays; a collection in mid-stream need not walk through all of it again.
        gc.collect()
        gc.freeze()
        urls = [_url(listening) for server in self.servers for listening in server.sockets]
        for url in urls:
            self._say(f"ready on {url}  (Ctrl-C stops)")
        self._notifier.ready(f"ready on {', '.join(urls)}")

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second: check the engines and the deadlines. Returns True to stop the
        server.
        """
        if self._died_at is None and not self.should_exit and not self._are_alive():
            self._died_at = time.monotonic()
            log.critical(
                "an engine has died and is not restarted, so the server exits in %g seconds with status 1",
                DEAD_SECONDS,
            )
            self._notifier.stopping("an engine has died")
        if self._died_at is not None and time.monotonic() - self._died_at >= DEAD_SECONDS:
            self.should_exit = True
        if counter % LOOK_TICKS == 0:
            await self._trimmer.look()
            self._descriptors.look()
            self._notifier.sign_of_life()
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal: the first one starts draining, the second one fails running requests, the third
        one exits.

        Unlike uvicorn, the server does not raise the signal again when it stops.
        """
        if not self.stopped:
            self._stop_at = time.monotonic() + self._delay
            self._wire.draining = True
            self._notifier.stopping("draining" if self.started else "stopped during startup")
            if not self.started:
                self._end_start()
        elif self._hurried:
            end_now()
        elif self._loop is not None:
            self._hurried = True
            self._loop.call_soon_threadsafe(self._hurry)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener and let requests finish for `drain_seconds`."""
        loop = asyncio.get_running_loop()
        self._wire.draining = True
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedProtocol):
                connection.answer_last()
        timer = loop.call_later(self._drain, self._end_what_runs)
        end = loop.time() + self._drain + LAST_WORDS
        try:
            # Meanwhile connections that wait stay open, so that a request on them is refused in words.
            while self.server_state.tasks and not self.force_exit and loop.time() < end:
                await asyncio.sleep(0.05)
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    def _are_alive(self) -> bool:
        states = [engine.state() for engine in self._engines]
        return all(state.alive or state.restarting for state in states)

    def _end_start(self) -> None:
        end_after(FORCE_SECONDS)
        if self._loop is not None and self._main is not None:
            self._loop.call_soon_threadsafe(self._main.cancel)

    def _hurry(self) -> None:
        end_after(LAST_SECONDS + 1)
        self._stop_at = time.monotonic()
        self._end_what_runs()
        asyncio.get_running_loop().call_later(LAST_SECONDS, self._force)

    def _force(self) -> None:
        self.force_exit = True

    async def _close_engines(self) -> None:
        await asyncio.gather(*(engine.close() for engine in self._engines))

    def _end_what_runs(self) -> None:
        if self._aborting is None:
            self._aborting = asyncio.ensure_future(self._close_engines())


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


_UNSAID = ("Application startup failed. Exiting.", "Cancel 0 running task(s)")
_OURS = f"{EngineError.__module__}.{EngineError.__qualname__}: "


def _in_brief(record: logging.LogRecord) -> bool:
    """Log filter for uvicorn that shortens the traceback of a failed start to its last line."""
    text = record.getMessage()
    if text.startswith("Traceback "):
        record.msg, record.args = text.rstrip().rpartition("\n")[2].removeprefix(_OURS), ()
    return not text.startswith(_UNSAID)
