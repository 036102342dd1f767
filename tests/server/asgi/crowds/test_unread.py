"""Clients that ask for much and never read, over real connections."""

from __future__ import annotations

import json
import os
import socket

import pytest

from server.engines.shared import unread
from tests.server.http_server import EN, Serving, eventually

ASK = {"model": EN, "prompt": "Hej", "max_tokens": 200, "ignore_eos": True, "logprobs": 20, "n": 8}
UNREAD = 'oneseek_unread_answers_total{base="tiny"}'


def ask_and_read_nothing(serving: Serving) -> socket.socket:
    with socket.socket(fileno=os.dup(serving.server.servers[0].sockets[0].fileno())) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)  # else the system takes it all
    host, port = serving.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
    connection.settimeout(30)
    connection.connect((host, int(port)))
    body = json.dumps(ASK | {"stream": True}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def is_idle(serving: Serving) -> bool:
    counts = serving.counts()
    return not any(count for name, count in counts.items() if name.startswith("oneseek_requests_running"))


def test_an_answer_that_nobody_reads_ends_with_the_reason(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "STREAM_BYTES", 100_000)
    before = serving.counts().get(UNREAD, 0)
    with ask_and_read_nothing(serving) as connection:
        assert eventually(lambda: serving.counts()[UNREAD] > before, 30)
        assert eventually(lambda: is_idle(serving), 30), "its rows are free while it is still connected"
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece
    errors = [line for line in received.decode().splitlines() if line.startswith('data: {"error"')]
    assert len(errors) == 1
    assert '"answer_not_read"' in errors[0]
