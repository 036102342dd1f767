"""Hosts that adapters are fetched from: S3 by moto, and a web server that behaves as a test says."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FILES = ("adapter_config.json", "adapter_model.safetensors", "oneseek.json", "README.md")
Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class WebHost:
    """A web server on the loopback: contents by path, and special answers."""

    port: int = 0
    contents: dict[str, bytes] = field(default_factory=dict[str, bytes])
    answers: dict[str, Answer] = field(default_factory=dict[str, Answer])
    asked: list[str] = field(default_factory=list[str])
    """Paths with their queries, in the order in which they were asked for."""
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, path: str, folder: Path) -> str:
        """Serve the adapter in `folder` at `path`; its URL."""
        for name in FILES:
            if (folder / name).is_file():
                self.contents[f"/{path}/{name}"] = (folder / name).read_bytes()
        return f"{self.url}/{path}"


@contextmanager
def web_host(context: ssl.SSLContext | None = None) -> Generator[WebHost]:
    host = WebHost()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host.asked.append(self.path)
            host.headers.append({name.lower(): value for name, value in self.headers.items()})
            path = self.path.partition("?")[0]
            special = next((answer for key, answer in host.answers.items() if path.startswith(key)), None)
            if special is not None:
                special(self)
                return
            send(self, host.contents.get(path))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    host.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, body: bytes | None, status: int = 200, **headers: str) -> None:
    """A whole answer; 404 without a body."""
    handler.send_response(status if body is not None else 404)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body or b"")))
    handler.end_headers()
    handler.wfile.write(body or b"")


def status(code: int, **headers: str) -> Answer:
    """An answer of nothing but a status."""
    return lambda handler: send(handler, b"", code, **headers)


def redirect(target: str) -> Answer:
    """To the same file below another URL."""
    return lambda handler: send(handler, b"", 302, Location=f"{target}/{handler.path.rpartition('/')[2]}")


def endless(size: int | None = None) -> Answer:
    """Far more bytes than a test allows, under a false size if one is given."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if size is not None:
            handler.send_header("Content-Length", str(size))
        handler.end_headers()
        handler.close_connection = True
        try:
            for _ in range(512):
                handler.wfile.write(b"\0" * 65536)
        except OSError:
            return

    return answer


def cut(body: bytes) -> Answer:
    """Half of what is announced."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        handler.close_connection = True

    return answer


def silent(until: threading.Event) -> Answer:
    """Nothing at all."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        until.wait(30)
        handler.close_connection = True

    return answer


def trickle(seconds: float, until: threading.Event) -> Answer:
    """A byte now and then, for as long as anyone listens."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        handler.close_connection = True
        try:
            while not until.is_set():
                handler.wfile.write(b"\0")
                handler.wfile.flush()
                time.sleep(seconds)
        except OSError:
            until.set()

    return answer
