"""External services, kind and hostile: what they may send, and what is never passed on."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from server.config.external import ExternalModelOptions
from server.errors import ApiError
from server.request import Delta
from server.serving.voices.external import (
    MAX_ANSWER,
    NO_EXTERNAL_MODELS,
    ExternalModels,
    ExternalQuestion,
    open_external_models,
)

KEY = "sk-secret-of-the-operator"
QUESTION = ExternalQuestion([{"role": "user", "content": "Hej!"}], {"max_tokens": 4, "temperature": 0.0})


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(content: str | None = None, end: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": content}, "finish_reason": end}])


WHOLE = {
    "choices": [{"message": {"role": "assistant", "content": "Hallå där"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2},
}
USAGE = event(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 2})
DONE = b"data: [DONE]\n\n"
STREAMS: dict[str, bytes] = {
    "good": delta("Hallå") + b": a comment\n\n" + delta(" där") + delta(None, "stop") + USAGE + DONE,
    "crlf": (delta("Hallå") + delta(" där", "length") + DONE).replace(b"\n", b"\r\n"),
    "without-done": delta("Hallå", "stop"),
    "empty": delta(None, "stop") + DONE,
    "cut": delta("Hallå"),
    "garbage": b"data: {nonsense\n\n",
    "wrong-shape": event(choices=[{"delta": {"content": 5}}]),
    "filtered": delta("Ha") + delta(None, "content_filter") + DONE,
    "endless": b"data: " + b"x" * (MAX_ANSWER + 1),
    "huge": delta("x" * 1000) * (MAX_ANSWER // 1000) + delta(None, "stop") + DONE,
}


class Service(BaseHTTPRequestHandler):
    """Answers as the first part of the path says."""

    seen: ClassVar[list[tuple[str, dict[str, str], Any]]] = []
    ended: ClassVar[threading.Event] = threading.Event()
    """Set when the slow answer may end."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        type(self).seen.append((self.path, headers, json.loads(body)))
        kind = self.path.split("/")[1]
        if kind in STREAMS:
            self.reply(200, STREAMS[kind], "text/event-stream; charset=utf-8")
        elif kind == "whole":
            self.reply(200, json.dumps(WHOLE).encode(), "application/json")
        elif kind == "redirect":
            self.reply(307, b"", "text/plain", {"Location": "/good/chat/completions"})
        elif kind == "refuses":
            self.reply(401, f"Incorrect API key: {KEY}".encode(), "text/plain")
        elif kind == "compressed":
            self.reply(200, STREAMS["good"], "text/event-stream", {"Content-Encoding": "gzip"})
        elif kind == "cookie":
            self.reply(200, STREAMS["good"], "text/event-stream", {"Set-Cookie": "tenant=one; Path=/"})
        elif kind == "slow":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(delta("Hal"))
            self.wfile.flush()
            type(self).ended.wait(30)

    def reply(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (
            {"Content-Type": kind, "Content-Length": str(len(body))} | (headers or {})
        ).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # its name in the base class
        return

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            return


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def opened(url: str, timeout: float = 5.0) -> ExternalModels:
    options = ExternalModelOptions(name="Far", url=url, model="far-1", api_key_env="FAR_KEY", timeout=timeout)
    return open_external_models({"far": options}, {"FAR_KEY": KEY})


def ask(url: str, timeout: float = 5.0, times: int = 1) -> list[Delta]:
    async def answer() -> list[Delta]:
        models = opened(url, timeout)
        try:
            found: list[Delta] = []
            for _ in range(times):
                model = models.find(" FAR ")
                assert model is not None
                found = [one async for one in model.answer(QUESTION)]
            return found
        finally:
            await models.close()

    return asyncio.run(answer())


@pytest.mark.parametrize(
    ("kind", "text", "end", "tokens"),
    [
        ("good", "Hallå där", "stop", (5, 2)),
        ("crlf", "Hallå där", "length", (0, 0)),
        ("without-done", "Hallå", "stop", (0, 0)),
        ("empty", "", "stop", (0, 0)),
        ("whole", "Hallå där", "stop", (5, 2)),
        ("cookie", "Hallå där", "stop", (5, 2)),
    ],
)
def test_an_answer_is_read(service: str, kind: str, text: str, end: str, tokens: tuple[int, int]) -> None:
    found = ask(f"{service}/{kind}/")
    assert "".join(one.text for one in found) == text
    last = found[-1]
    assert (last.finish_reason, sum(one.finish_reason is not None for one in found)) == (end, 1)
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == tokens
    assert last.timing is not None


def test_the_service_is_asked_in_openais_words(service: str) -> None:
    Service.seen.clear()
    ask(f"{service}/cookie/v1", times=2)
    assert len(Service.seen) == 2
    for path, headers, body in Service.seen:
        assert path == "/cookie/v1/chat/completions"
        assert headers["authorization"] == f"Bearer {KEY}"
        assert headers["accept-encoding"] == "identity"
        assert "cookie" not in headers, "one tenant's session is not another's"
        assert body == {
            "model": "far-1",
            "messages": QUESTION.messages,
            "max_tokens": 4,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


@pytest.mark.parametrize(
    "kind",
    [
        "cut",
        "garbage",
        "wrong-shape",
        "filtered",
        "endless",
        "huge",
        "redirect",
        "refuses",
        "compressed",
        "gone",
    ],
)
def test_whatever_goes_wrong_is_one_error_that_tells_no_secret(
    service: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    Service.seen.clear()
    with caplog.at_level(logging.DEBUG), pytest.raises(ApiError) as failed:
        ask(f"{service}/{kind}")
    reply = failed.value.reply
    assert (reply.status, reply.code) == (502, "external_model_failed")
    assert reply.message.startswith("The external model Far ")
    assert len(Service.seen) == 1, "no redirect is followed, nothing is tried again"
    assert KEY not in reply.message + caplog.text
    assert "127.0.0.1" not in reply.message + "".join(
        record.getMessage() for record in caplog.records if not record.name.startswith("asyncio")
    )


def test_a_service_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ApiError) as failed:
        ask("http://127.0.0.1:9")
    assert failed.value.reply.code == "external_model_failed"
    assert KEY not in caplog.text


def test_the_time_is_for_the_whole_answer(service: str) -> None:
    Service.ended.clear()
    began = time.perf_counter()
    with pytest.raises(ApiError) as failed:
        ask(f"{service}/slow", timeout=0.3)
    took = time.perf_counter() - began
    Service.ended.set()
    assert (failed.value.reply.status, failed.value.reply.code) == (504, "external_model_timeout")
    assert took < 15


def test_without_services_nothing_is_opened() -> None:
    assert open_external_models({}, {}) is NO_EXTERNAL_MODELS
    assert NO_EXTERNAL_MODELS.find("far") is None
    asyncio.run(NO_EXTERNAL_MODELS.close())
