"""A tiny server that speaks OpenAI's API and behaves as a test wants it to, badly too."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What is sent back."""

    text: str = ""
    status: int = 200
    retry_after: str | None = None
    finish: str = "stop"
    delay: float = 0.0
    body: bytes | None = None
    """In place of an answer."""


Behave = Callable[[int, str], Reply]
"""Number of the request, from 0, and its question → what is sent back."""


@dataclass
class FarEnd:
    """A running server, and what it met."""

    url: str = ""
    asked: list[str] = field(default_factory=list[str])
    """Every question that came, answered or not."""
    answered: list[str] = field(default_factory=list[str])
    """Those whose answer was made."""
    times: list[float] = field(default_factory=list[float])
    keys: set[str | None] = field(default_factory=set[str | None])
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, question: str, key: str | None) -> int:
        with self._lock:
            self.asked.append(question)
            self.times.append(time.monotonic())
            self.keys.add(key)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            return len(self.asked) - 1

    def leave(self, question: str, status: int) -> None:
        """Before the reply is sent: whoever has it may go on before this thread does."""
        with self._lock:
            self._at_once -= 1
            if status == 200:
                self.answered.append(question)


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed has gone; that is what the test did."""


@contextmanager
def far_end(behave: Behave) -> Generator[FarEnd]:
    """The server, for as long as it is needed."""
    met = FarEnd()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(Reply(), {"data": [{"id": "teacher"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question: str = body["messages"][0]["content"]
            reply = behave(met.enter(question, self.headers.get("Authorization")), question)
            time.sleep(reply.delay)
            met.leave(question, reply.status)
            message = {"role": "assistant", "content": reply.text}
            choice = {"message": message, "finish_reason": reply.finish}
            self._send(reply, {"choices": [choice], "model": "teacher", "system_fingerprint": "fp_1"})

        def _send(self, reply: Reply, body: object) -> None:
            data = json.dumps(body).encode() if reply.body is None else reply.body
            self.send_response(reply.status)
            if reply.retry_after is not None:
                self.send_header("Retry-After", reply.retry_after)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    with _Quiet(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        met.url = f"http://127.0.0.1:{running.server_port}"
        try:
            yield met
        finally:
            running.shutdown()
            thread.join()
