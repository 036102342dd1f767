"""What a client of HTTP/1.0 is sent: no chunks, and the end of the connection as the end of the body."""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.server.http_server import Serving

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "ignore_eos": True}


def ask(serving: Serving, head: str, body: bytes = b"") -> tuple[str, bytes]:
    """Head, in lower case, and body of the answer."""
    host, _, port = serving.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + b"\r\n" + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head_sent, _, rest = answer.partition(b"\r\n\r\n")
    return head_sent.decode().lower(), rest


def post(serving: Serving, path: str, body: dict[str, Any], *, version: str = "1.0") -> tuple[str, bytes]:
    sent = json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n"
    return ask(serving, head, sent)


def test_a_stream_is_events_and_nothing_else(serving: Serving) -> None:
    head, body = post(serving, "/v1/chat/completions", BODY | {"stream": True})
    assert "200 ok" in head
    assert "transfer-encoding" not in head
    assert "content-length" not in head
    events = body.decode().split("\n\n")
    assert all(event.startswith("data: ") for event in events[:-1])
    assert events[-2:] == ["data: [DONE]", ""]


def test_an_answer_of_known_length_says_it(serving: Serving) -> None:
    head, body = post(serving, "/v1/chat/completions", BODY)
    assert "transfer-encoding" not in head
    assert f"content-length: {len(body)}" in head
    assert json.loads(body)["usage"]["completion_tokens"] == 3


def test_a_large_answer_is_whole(serving: Serving) -> None:
    head, body = post(serving, "/v1/chat/completions", BODY | {"max_tokens": 60, "logprobs": True})
    assert "transfer-encoding" not in head
    assert len(json.loads(body)["choices"][0]["logprobs"]["content"]) == 60


def test_newer_clients_still_get_chunks(serving: Serving) -> None:
    head, _ = post(serving, "/v1/chat/completions", BODY | {"stream": True}, version="1.1")
    assert "transfer-encoding: chunked" in head


def test_an_error_is_as_ever(serving: Serving) -> None:
    head, body = ask(serving, "GET /nowhere HTTP/1.0\r\n")
    assert "404" in head
    assert json.loads(body)["error"]["code"] == "not_found"


def test_it_is_not_told_to_continue(serving: Serving) -> None:
    """An older client would take `100 Continue` for the answer."""
    sent = json.dumps(BODY).encode()
    head = "POST /v1/chat/completions HTTP/1.0\r\nExpect: 100-continue\r\nContent-Type: application/json\r\n"
    first, _ = ask(serving, f"{head}Content-Length: {len(sent)}\r\n", sent)
    assert first.startswith("http/1.1 200 ok")
