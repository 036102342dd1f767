"""Measure how long `GET /live` takes, repeatedly over one connection from a separate process."""

from __future__ import annotations

import gc
import multiprocessing
import socket
import time
from array import array
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

INTERVAL = 0.004
"""Seconds to pause between two requests to `/live`."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Statistics of the response times of `/live` in one phase of the benchmark, in milliseconds."""

    count: int
    p50: float
    p99: float
    p999: float
    worst: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Waits:
        """Return the statistics of response times that are given in seconds. At least one is needed."""
        ordered = sorted(seconds)

        def at(share: float) -> float:
            return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)

        return cls(len(ordered), at(0.5), at(0.99), at(0.999), round(1000 * ordered[-1], 2))


class LiveSampler:
    """Reads response times of `/live` from the process that measures them. Times are those of
    `time.monotonic()`, which is the same in all processes of a machine.
    """

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        self._pipe = pipe

    def since(self, began: float) -> list[float]:
        """Return the response times in seconds of the requests to `/live` that ended after `began`. Wait
        until there is at least one. Raises `RuntimeError` if the server closed the connection.
        """
        self._pipe.send(began)
        answer: list[float] = self._pipe.recv()
        if not answer:
            raise RuntimeError(
                "GET /live failed: the server closed the connection or did not answer 200; see the server's "
                "log"
            )
        return answer


@contextmanager
def sampling(port: int) -> Generator[LiveSampler]:
    """Measure `/live` of the server on `port` in a separate process until the `with` block ends."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_sample, args=(port, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()
        yield LiveSampler(ours)
    finally:
        ours.close()
        process.terminate()
        process.join(10)


def _sample(port: int, pipe: Connection[Any, Any]) -> None:
    gc.disable()
    starts, ends = array("d"), array("d")
    request = f"GET /live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pipe.send("ready")
        while True:
            starts.append(time.monotonic())
            connection.sendall(request)
            answer = connection.recv(4096)
            while answer and not answer.endswith(b"}"):
                more = connection.recv(4096)
                answer = answer + more if more else b""
            ends.append(time.monotonic())
            if not answer.startswith(b"HTTP/1.1 200"):
                pipe.send([])
                return
            if pipe.poll():
                try:
                    began = pipe.recv()
                except EOFError:
                    return
                pairs = zip(starts, ends, strict=True)
                pipe.send([end - start for start, end in pairs if end >= began])
            time.sleep(INTERVAL)
