"""The size fuzz: its bodies are as large as they may be, and its verdict is about the sampler."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter

import pytest

from bench.hostile import command
from bench.hostile.bodies import BASES, FIELDS, HostileRequest, filled, shaped, small_elements, valid_requests
from bench.hostile.command import P999_MS, WORST_MS, report
from bench.hostile.sampler import Waits

SIZE = 4096


def test_bodies_are_json_of_the_size_asked_for() -> None:
    seen: Counter[str] = Counter()
    for request in (*small_elements(SIZE), *shaped(SIZE)):
        seen[request.path] += 1
        assert len(request.body) <= SIZE + 16, request.name
        if "deep" not in request.name and "escapes" not in request.name:
            json.loads(request.body)
    assert seen.keys() == FIELDS.keys() == BASES.keys()


def test_a_field_is_filled() -> None:
    body = json.loads(filled({"a": 1, "b": 2}, "b", "[", "{}", "]", 1000))
    assert body["a"] == 1
    assert len(body["b"]) > 300


def test_valid_requests_are_valid_json() -> None:
    for request in valid_requests(64):
        assert request.valid
        assert json.loads(request.body)


@pytest.mark.parametrize(("worst", "kept"), [(0.01, True), (0.2, False)])
def test_the_verdict_is_about_the_worst_wait(worst: float, kept: bool) -> None:
    result = report([0.001] * 10, [0.002] * 10, [*[0.001] * 5000, worst])
    assert result["kept"] is kept
    assert result["limits_ms"] == {"p999": P999_MS, "worst": WORST_MS}
    assert result["attacked_ms"]["worst"] == worst * 1000


def test_the_rare_wait_counts_too() -> None:
    assert not report([0.001], [0.001], [*[0.001] * 990, *[0.06] * 10])["kept"]
    assert Waits.of([0.001, 0.002, 0.003]).p50 == 2.0


def test_a_server_is_sampled_while_it_is_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it, on this project's server, with three requests."""
    sent = [
        HostileRequest("a", "/v1/completions", b'{"prompt": "Hej", "max_tokens": 1}', valid=True),
        HostileRequest("b", "/v1/completions", b'{"prompt": [' + b"{}," * 2000 + b"{}]}"),
        HostileRequest("c", "/nowhere", b"{}", valid=True),
    ]
    monkeypatch.setattr(command, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(command, "requests", lambda *_: iter(sent))
    result = command.run(Namespace(url="", options="--threads 1", kinds="", size=0, context=0, only=""))
    assert result["idle_ms"]["count"] > 1
    assert result["attacked_ms"]["count"] >= 6
    assert {one["request"] for one in result["slowest"]} == {"a", "b", "c"}
    assert result["faults"] == ["c: [404]", "c: [404]"]
