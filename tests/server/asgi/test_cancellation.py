"""A request's time and its client are watched from its headers on: in each phase, at each endpoint."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from adapters.lora.manifest import Adapter
from server.config.settings import Settings
from server.grammar.service import Grammars
from server.text.tokenizer import Tokenizer
from tests.server.http_server import SV, Serving, eventually, make_app, served

pytestmark = pytest.mark.slow

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
EMBEDDINGS, TOKENIZE, LEGACY = "/v1/embeddings", "/tokenize", "/inference/oneseek"
COLD = f"{SV}@v1.0"
LONG = "Vem är du? " * 400
"""Too long to be tokenised on the event loop."""


@dataclass
class SlowServer:
    """A server that loads a cold adapter, tokenises a long text or tries a grammar once it is released."""

    serving: Serving
    released: threading.Event

    def release(self) -> None:
        self.released.set()

    def tasks(self) -> int:
        return len(asyncio.all_tasks(self.serving.loop))

    def count(self, name: str) -> float:
        return self.serving.counts().get(name, 0.0)

    def given_up(self, path: str, status: int) -> float:
        return sum(
            value
            for name, value in self.serving.counts().items()
            if name.startswith("oneseek_requests_total") and path in name and f'status="{status}"' in name
        )


Hold = Callable[..., AbstractContextManager[SlowServer]]


@pytest.fixture
def hold(
    tiny_base: Path, voices: Mapping[str, Adapter], graphs: Path, monkeypatch: pytest.MonkeyPatch
) -> Hold:
    @contextmanager
    def begin(**given: Any) -> Generator[SlowServer]:
        settings = Settings(port=0, max_num_seqs=2, log_level="critical", drain_seconds=1, **given)
        made = make_app(tiny_base, voices, graphs, settings)
        load, released = made.engine.load, threading.Event()

        def hold_up(owner: type, name: str, slow: Callable[[Any], bool]) -> None:
            work = getattr(owner, name)

            def held(self: object, first: Any, *given: Any, **named: Any) -> Any:
                if slow(first):
                    released.wait(60)
                return work(self, first, *given, **named)

            monkeypatch.setattr(owner, name, held)

        async def slow_load(adapter: Adapter) -> None:
            if adapter.full_name == COLD:
                await asyncio.to_thread(released.wait, 60)
            await load(adapter)

        monkeypatch.setattr(made.engine, "load", slow_load)
        hold_up(Tokenizer, "chat", lambda messages: LONG in str(messages))
        hold_up(Grammars, "_try", lambda _: True)
        with served(made, settings, voices) as serving:
            try:
                yield SlowServer(serving, released)
            finally:
                released.set()

    return begin


def body(path: str, model: str, text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {
        CHAT: {"model": model, "messages": messages, "max_tokens": 2},
        COMPLETIONS: {"model": model, "prompt": text, "max_tokens": 2},
        RESPONSES: {"model": model, "input": text, "max_output_tokens": 16},
        EMBEDDINGS: {"model": model, "input": text},
        TOKENIZE: {"model": model, "messages": messages},
        LEGACY: {"text": text, "max_tokens": 2},
    }[path]


Parts = tuple[str, bytes, bytes]
"""A path, the head of a request for it, and as much of the body as is sent."""


def request(path: str, model: str, text: str, *, part: float = 1.0, **more: Any) -> Parts:
    content = json.dumps(body(path, model, text) | more).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        *([f"X-OneSeek-Adapter: {model}"] if path == LEGACY else []),
    ]
    return path, "\r\n".join([*lines, "", ""]).encode(), content[: int(len(content) * part)]


SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer"}}}
PHASES: dict[str, Parts] = {
    **{
        f"body{path}": request(path, SV, "Vem är du?", part=0.5)
        for path in (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, TOKENIZE, LEGACY)
    },
    **{f"load{path}": request(path, COLD, "Vem är du?") for path in (CHAT, COMPLETIONS, RESPONSES, LEGACY)},
    "load-streamed": request(CHAT, COLD, "Vem är du?", stream=True),
    **{f"tokenise{path}": request(path, SV, LONG) for path in (CHAT, RESPONSES, TOKENIZE, LEGACY)},
    "grammar": request(CHAT, SV, "Vem är du?", response_format=SCHEMA),
}


def connect(serving: Serving) -> socket.socket:
    host, port = serving.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


@pytest.mark.parametrize("phase", PHASES)
def test_time_runs_from_the_headers_on(hold: Hold, phase: str) -> None:
    path, head, content = PHASES[phase]
    late = phase.startswith("body")
    with hold(request_timeout=0.3) as slow, connect(slow.serving) as connection:
        began = time.monotonic()
        connection.sendall(head + content)
        reply = HTTPResponse(connection)
        reply.begin()
        assert time.monotonic() - began > 0.25
        status, code = (408, "request_timeout") if late else (504, "timeout")
        assert reply.status == status
        assert json.loads(reply.read())["error"]["code"] == code
        assert eventually(lambda: slow.given_up(path, status) == 1, 20)
        assert slow.count('oneseek_cancelled_total{reason="timeout"}') == 1
        assert slow.count(f'oneseek_rejected_total{{reason="{code}"}}') == 1


@pytest.mark.parametrize("phase", PHASES)
def test_a_client_that_leaves_ends_its_request(hold: Hold, phase: str) -> None:
    path, head, content = PHASES[phase]
    with hold() as slow:
        before = slow.tasks()
        with connect(slow.serving) as connection:
            connection.sendall(head + content)
            time.sleep(0.2)
        assert eventually(lambda: slow.given_up(path, 499) == 1, 20)
        assert slow.count('oneseek_cancelled_total{reason="disconnect"}') == 1
        slow.release()
        assert eventually(lambda: slow.tasks() <= before, 20)
        state = slow.serving.engine.state()
        assert (dict(state.running), dict(state.waiting)) == ({}, {})
        again = request(CHAT, COLD if phase.startswith("load") else SV, "Hej")[2]
        headers = {"Content-Type": "application/json"}
        assert slow.serving.http.post(CHAT, content=again, headers=headers).status_code == 200


def test_who_waits_for_a_load_is_served_although_the_first_has_left(hold: Hold) -> None:
    with hold() as slow:
        _, head, content = request(CHAT, COLD, "Vem är du?")
        with connect(slow.serving) as first, connect(slow.serving) as second:
            for connection in (first, second):
                connection.sendall(head + content)
            time.sleep(0.2)
            first.close()
            assert eventually(lambda: slow.given_up(CHAT, 499) == 1, 20)
            slow.release()
            assert second.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_texts_of_clients_who_left_are_still_tokenised_one_at_a_time(hold: Hold) -> None:
    with hold() as slow:
        _, head, content = request(TOKENIZE, SV, LONG)
        for _ in range(4):
            with connect(slow.serving) as connection:
                connection.sendall(head + content)
                time.sleep(0.1)
        assert eventually(lambda: slow.given_up(TOKENIZE, 499) == 4, 20)
        threads = asyncio.run_coroutine_threadsafe(_working(), slow.serving.loop).result(30)
        assert threads == 1


async def _working() -> int:
    """Tasks that wait for a thread."""
    return sum("to_thread" in repr(task) for task in asyncio.all_tasks())
