"""One line for each request: who asked, who answered, how much and how long, and nothing of what was said."""

from __future__ import annotations

import hashlib
import json
import os
import select
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapters.lora.manifest import Adapter
from server.config.settings import Settings
from server.exchange import Exchange, KeptContent
from server.telemetry.entry import Work, describe
from server.telemetry.request_log import MOST_CONTENT, as_line, as_text, open_request_log
from tests.server.http_server import METRICS_KEY, SV, Serving, eventually, make_app, served

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes are filled and read as POSIX has them")
KEY = "hemlig-nyckel"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SECRET = "Min hemlighet är mycket känslig"
QUESTION = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 4, "ignore_eos": True}


@dataclass
class LogReader:
    """Reads the lines that come out of a pipe."""

    descriptor: int
    pending: bytes = b""
    lines: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def next(self, seconds: float = 10) -> dict[str, Any]:
        """The next line, once it is there."""
        end = time.monotonic() + seconds
        while b"\n" not in self.pending:
            ready, _, _ = select.select([self.descriptor], [], [], max(0, end - time.monotonic()))
            assert ready, "no line came"
            self.pending += os.read(self.descriptor, 1 << 16)
        line, _, self.pending = self.pending.partition(b"\n")
        return json.loads(line)

    def empty(self) -> bool:
        return not self.pending and not select.select([self.descriptor], [], [], 0.2)[0]


@dataclass
class LoggedServer:
    """A server, what it logs, and the pipe's writing end."""

    serving: Serving
    log: LogReader
    write: int

    def ask(self, path: str = CHAT, **fields: Any) -> dict[str, Any]:
        """The line of a request."""
        self.serving.http.post(path, json=QUESTION | fields)
        return self.log.next()


def start(
    tiny_base: Path, voices: Mapping[str, Adapter], graphs: Path, *, content: bool
) -> Iterator[LoggedServer]:
    read, write = os.pipe()
    settings = Settings(
        port=0,
        max_num_seqs=4,
        api_keys=(KEY,),
        metrics_keys=(METRICS_KEY,),
        log_level="critical",
        drain_seconds=1,
        log_content=content,
    )
    log = open_request_log(write, as_json=True, content=content)
    made = make_app(tiny_base, voices, graphs, settings, observers=[log])
    with served(made, settings, voices) as serving:
        serving.http.headers["Authorization"] = f"Bearer {KEY}"
        yield LoggedServer(serving, LogReader(read), write)
    for end in (read, write):
        os.close(end)


@pytest.fixture(scope="module")
def logged(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> Iterator[LoggedServer]:
    yield from start(tiny_base, voices, graphs, content=False)


@pytest.fixture(scope="module")
def candid(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> Iterator[LoggedServer]:
    """A server whose settings ask for what is said."""
    yield from start(tiny_base, voices, graphs, content=True)


def test_a_line_says_who_asked_who_answered_and_how_long_it_took(logged: LoggedServer) -> None:
    answer = logged.serving.http.post(CHAT, json=QUESTION, headers={"X-Request-ID": "my-id"})
    line = logged.log.next()
    sv = logged.serving.adapters["sv"]
    assert (line["event"], line["id"], line["status"], line["method"]) == ("request", "my-id", 200, "POST")
    assert line["endpoint"] == CHAT
    assert line["key"] == hashlib.sha256(KEY.encode()).hexdigest()[:8]
    assert (line["adapter"], line["digest"]) == (f"{SV}@v1.1", sv.digest)
    assert (line["language"], line["base"]) == ("sv", "tiny")
    assert f"{line['route']};confidence={line['confidence']:.2f}" == answer.headers["X-OneSeek-Route"]
    usage = answer.json()["usage"]
    assert (line["prompt_tokens"], line["completion_tokens"]) == (usage["prompt_tokens"], 4)
    assert line["finish"] == ["length"]
    times = [line[f"{name}_seconds"] for name in ("parse", "route", "queue", "prefill", "decode")]
    assert all(0 <= one <= line["seconds"] for one in times)
    assert 0 < line["first_token_seconds"] <= line["seconds"]
    assert not {"stream", "error", "cancelled", "voices"} & line.keys()


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_of_what_is_said_is_in_a_line(logged: LoggedServer, stream: bool) -> None:
    answer = logged.serving.http.post(COMPLETIONS, json={"prompt": SECRET, "max_tokens": 3, "stream": stream})
    assert answer.status_code == 200
    line = logged.log.next()
    assert line.get("stream", False) is stream
    shown = json.dumps(line, ensure_ascii=False)
    assert not any(word in shown for word in SECRET.split() if len(word) > 3)
    assert not {"request", "answers"} & line.keys()


def test_errors_are_lines_with_their_codes(logged: LoggedServer) -> None:
    assert logged.ask(temperature=-1)["error"] == "invalid_value"
    unknown = logged.ask(model="no-such-" + "x" * 150)
    assert (unknown["status"], unknown["error"]) == (404, "model_not_found")
    assert unknown["asked"].startswith("no-such-x")
    assert len(unknown["asked"]) == 100
    logged.serving.http.post(CHAT, json=QUESTION, headers={"Authorization": "Bearer wrong"})
    refused = logged.log.next()
    assert (refused["status"], refused["error"]) == (401, "invalid_api_key")
    assert "key" not in refused
    logged.serving.http.get("/nowhere/secret")
    lost = logged.log.next()
    assert (lost["status"], lost["endpoint"]) == (404, "unknown")


def test_a_client_that_leaves_is_logged_with_the_tokens_that_it_cost(logged: LoggedServer) -> None:
    url = logged.serving.url.removeprefix("http://").split(":")
    body = json.dumps(QUESTION | {"max_tokens": 200, "stream": True}).encode()
    with socket.create_connection((url[0], int(url[1]))) as client:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: {':'.join(url)}\r\nAuthorization: Bearer {KEY}\r\n"
        client.sendall(
            f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        client.sendall(body)
        client.recv(100)
    line = logged.log.next()
    assert (line["cancelled"], line["stream"]) == ("disconnect", True)
    assert "finish" not in line
    assert line["completion_tokens"] < 200


def test_probes_and_scrapes_are_no_lines(logged: LoggedServer) -> None:
    for path in ("/live", "/ready", "/health", "/ping"):
        logged.serving.http.get(path)
    logged.serving.counts()
    assert logged.log.empty()


def test_several_voices_are_one_line(logged: LoggedServer) -> None:
    body = {"question": SECRET, "models": ["base", "sv"], "max_tokens": 3, "ignore_eos": True}
    logged.serving.http.post("/api/oqt/multi-model-query", json=body)
    line = logged.log.next()
    assert [voice["adapter"] for voice in line["voices"]] == ["base", f"{SV}@v1.1"]
    assert [voice["completion_tokens"] for voice in line["voices"]] == [3, 3]
    assert "adapter" not in line


def test_what_is_said_is_logged_where_the_settings_ask_for_it(candid: LoggedServer) -> None:
    answer = candid.serving.http.post(CHAT, json=QUESTION | {"n": 2}).json()
    line = candid.log.next()
    assert line["request"] == QUESTION | {"n": 2}
    assert line["answers"] == [choice["message"]["content"] for choice in answer["choices"]]
    body = {"question": SECRET, "models": ["base", "sv"], "max_tokens": 3}
    found = candid.serving.http.post("/api/oqt/multi-model-query", json=body).json()
    assert candid.log.next()["answers"] == [voice["text"] for voice in found["voices"]]


def test_a_full_pipe_holds_up_no_request(logged: LoggedServer) -> None:
    os.set_blocking(logged.write, False)
    filled = 0
    try:
        while True:
            filled += os.write(logged.write, b"\n" * 4096)
    except BlockingIOError:
        os.set_blocking(logged.write, True)
    slowest = 0.0
    for _ in range(20):
        began = time.perf_counter()
        assert logged.serving.http.get("/v1/models").status_code == 200
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 10, "nobody reads the pipe: what waits for it waits for ever"
    while filled:
        filled -= len(os.read(logged.log.descriptor, filled))
    assert [logged.log.next()["endpoint"] for _ in range(20)] == ["/v1/models"] * 20
    assert eventually(logged.log.empty)


def exchange() -> Exchange:
    return Exchange("id", method="GET", endpoint="/v1/models", status=200)


def test_a_line_for_people_holds_no_control_characters() -> None:
    one = exchange()
    one.adapter, one.requested, one.status, one.error = "unknown", "\x1b[2J\x9bname\n", 404, "model_not_found"
    line = as_text(describe(one), Work()).decode()
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert " 404 GET /v1/models model_not_found asked='" in line
    kept = (KeptContent(b'{"prompt": "\x1b[2J"}', {0: ["\x9b", "text"]}),)
    assert as_text(describe(exchange()), Work(), kept).decode()[:-1].isprintable()


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{\n "a": [1,\r\n 2]\n}', {"request": {"a": [1, 2]}}),
        (b"not json\n\xff", {"request": "not json\n�"}),
        (b"[" * 10_000, {"request": "[" * 10_000}),
        (b'"' + b"x" * MOST_CONTENT + b'"', {"request_bytes": MOST_CONTENT + 2}),
        (b"", {}),
    ],
    ids=["layout", "not JSON", "nested", "long", "none"],
)
def test_whatever_a_body_holds_a_line_is_one_line_of_json(body: bytes, shown: dict[str, object]) -> None:
    line = as_line(describe(exchange()), Work(), (KeptContent(body, {1: ["b"], 0: ["a", "\n"]}),))
    assert line.count(b"\n") == 1
    found = json.loads(line)
    assert {name: found[name] for name in found if name.startswith("request")} == shown
    assert found["answers"] == ["a\n", "b"]
