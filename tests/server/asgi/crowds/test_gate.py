"""What a full queue refuses, how early, and what is left behind of whatever came in."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from adapters.lora.manifest import Adapter
from server.asgi.gate import GATED, SMALL_BODY
from server.config.settings import Settings
from server.engines.shared.places import Places
from server.request import Share
from tests.server.http_server import EN, METRICS_KEY, SV, Serving, eventually, make_app, served

KEYS = ("key-of-one", "key-of-two")
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
EMBEDDINGS, LEGACY = "/v1/embeddings", "/inference/oneseek"
SEVERAL = "/api/oqt/multi-model-query"
ROWS, QUEUE = 2, 4


@pytest.fixture(scope="module")
def gated(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> Iterator[Serving]:
    """Two rows and a queue of four, with two keys."""
    limits = Settings(
        port=0,
        max_num_seqs=ROWS,
        max_queue=QUEUE,
        api_keys=KEYS,
        metrics_keys=(METRICS_KEY,),
        log_level="critical",
        drain_seconds=1,
    )
    with served(make_app(tiny_base, voices, graphs, limits), limits, voices) as serving:
        serving.http.headers["Authorization"] = f"Bearer {KEYS[0]}"
        yield serving


def places(serving: Serving) -> Places[Any]:
    found = serving.engine.places
    assert isinstance(found, Places)
    return cast("Places[Any]", found)


def on_loop(serving: Serving, work: Callable[[], object]) -> Any:
    """What `work` returns on the server's event loop."""

    async def call() -> object:
        return work()

    return asyncio.run_coroutine_threadsafe(call(), serving.loop).result(30)


@contextmanager
def taken(serving: Serving, name: str, count: int, key: str = KEYS[0]) -> Generator[None]:
    """Places held for an adapter and a key, as by requests that wait."""
    tenant = hashlib.sha256(key.encode()).hexdigest()[:32]
    digest = serving.served.resolve(name).digest if name != "base" else ""
    held = on_loop(serving, lambda: [places(serving).reserve(Share(tenant, digest)) for _ in range(count)])
    try:
        yield
    finally:
        on_loop(serving, lambda: [each.close() for each in held])


def body(path: str, model: str = SV, **more: Any) -> dict[str, Any]:
    text = "Vem är du?"
    return {
        CHAT: {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 2},
        COMPLETIONS: {"model": model, "prompt": text, "max_tokens": 2},
        RESPONSES: {"model": model, "input": text, "max_output_tokens": 16},
        EMBEDDINGS: {"model": model, "input": text},
        LEGACY: {"text": text, "max_tokens": 2},
    }[path] | more


def refused_at(serving: Serving, gate: str) -> float:
    return serving.counts().get(f'oneseek_queue_refusals_total{{gate="{gate}"}}', 0.0)


def test_every_path_that_makes_something_is_gated() -> None:
    assert {CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, LEGACY, SEVERAL} <= GATED


@pytest.mark.parametrize(("models", "gate"), [(["base", SV], "body"), (["oneseek", "base"], "share")])
def test_a_full_queue_is_found_for_any_of_several_voices(
    gated: Serving, models: list[str], gate: str
) -> None:
    asked = {"question": "Vem är du? Jag är en liten modell för prov.", "models": models, "max_tokens": 2}
    with taken(gated, SV, ROWS + QUEUE):
        before, live = refused_at(gated, gate), places(gated).live
        reply = gated.http.post(SEVERAL, json=asked)
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "queue_full")
        assert int(reply.headers["retry-after"]) >= 1
        assert refused_at(gated, gate) == before + 1
        assert places(gated).live == live
        other = gated.http.post(SEVERAL, json=asked | {"models": ["base", EN]})
        assert other.status_code == 200, "each of these shares has its part"
    assert gated.http.post(SEVERAL, json=asked).status_code == 200
    assert eventually(lambda: places(gated).live == 0)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, LEGACY])
@pytest.mark.parametrize(("gate", "name"), [("headers", "header"), ("body", "model"), ("share", "language")])
def test_a_full_queue_is_found_as_early_as_the_share_is_known(
    gated: Serving, path: str, gate: str, name: str
) -> None:
    if path == LEGACY and gate == "body":
        pytest.skip("no model is named here")
    headers = {"X-OneSeek-Adapter": SV} if name == "header" else {}
    asked = body(path, SV if name == "model" else "oneseek")
    with taken(gated, SV, ROWS + QUEUE):
        before = refused_at(gated, gate)
        reply = gated.http.post(path, json=asked, headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "queue_full")
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.headers["x-ratelimit-limit-requests"] == str(ROWS + QUEUE)
        assert reply.headers["x-ratelimit-remaining-requests"] == "0"
        assert reply.headers["x-ratelimit-reset-requests"] == reply.headers["retry-after"] + "s"
        assert reply.headers["x-oneseek-adapter"] == f"{SV}@v1.1"
        assert refused_at(gated, gate) == before + 1
    assert gated.http.post(path, json=asked, headers=headers).status_code == 200
    assert places(gated).live == 0


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_says_how_many_places_are_free(gated: Serving, *, stream: bool) -> None:
    with taken(gated, SV, 1):
        reply = gated.http.post(CHAT, json=body(CHAT, stream=stream))
    assert reply.headers["x-ratelimit-limit-requests"] == str(ROWS + QUEUE)
    # Its own place is given back only once it is sent.
    assert int(reply.headers["x-ratelimit-remaining-requests"]) in (ROWS + QUEUE - 1, ROWS + QUEUE - 2)
    assert "x-ratelimit-reset-requests" not in reply.headers
    assert "x-ratelimit-limit-requests" not in gated.http.get("/v1/models").headers


@pytest.mark.parametrize(
    ("name", "key", "header"),
    [(SV, KEYS[1], None), (EN, KEYS[0], None), ("base", KEYS[0], None), (EN, KEYS[0], EN)],
)
def test_another_key_or_adapter_has_its_part(gated: Serving, name: str, key: str, header: str | None) -> None:
    headers = {"Authorization": f"Bearer {key}"} | ({"X-OneSeek-Adapter": header} if header else {})
    with taken(gated, SV, ROWS + QUEUE):
        assert gated.http.post(CHAT, json=body(CHAT, name), headers=headers).status_code == 200


def test_a_blend_is_its_heaviest_adapter_and_other_names_are_not_refused(gated: Serving) -> None:
    with taken(gated, SV, ROWS + QUEUE):
        for header, status in ((f"{SV}=0.8,{EN}=0.2", 429), (f"{SV}=0.2,{EN}=0.8", 200), ("auto", 200)):
            reply = gated.http.post(
                CHAT,
                json=body(CHAT) | {"messages": [{"role": "user", "content": "Who are you?"}]},
                headers={"X-OneSeek-Adapter": header},
            )
            assert reply.status_code == status, header
        assert gated.http.post(CHAT, json=body(CHAT, "nobody")).status_code == 404
        assert gated.http.post(CHAT, json=body(CHAT), headers={"X-OneSeek-Adapter": "=="}).status_code == 400


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT, {"n": 4}),
        (COMPLETIONS, {"n": 2, "prompt": ["a b", "c d"]}),
        (COMPLETIONS, {"prompt": [[3, 4]] * 4}),
        (COMPLETIONS, {"n": 4, "prompt": [3, 4]}),
    ],
)
def test_choices_and_prompts_count_as_what_they_are(gated: Serving, path: str, more: dict[str, Any]) -> None:
    with taken(gated, EN, ROWS + QUEUE, KEYS[1]):
        # Two shares wait: each has two places of four.
        assert gated.http.post(path, json=body(path) | more).status_code == 429
        assert gated.http.post(path, json=body(path)).status_code == 200
    assert gated.http.post(path, json=body(path) | more).status_code == 200
    assert places(gated).live == 0


def test_choices_of_a_routed_request_are_let_in_together(gated: Serving) -> None:
    asked = body(COMPLETIONS, "oneseek") | {"prompt": ["Vem är du?", "Var bor du?"], "n": 2}
    with taken(gated, EN, ROWS + QUEUE, KEYS[1]):
        before = refused_at(gated, "share")
        assert gated.http.post(COMPLETIONS, json=asked).status_code == 429
        assert refused_at(gated, "share") == before + 1
    assert gated.http.post(COMPLETIONS, json=asked).status_code == 200


def test_all_shares_beyond_their_part_are_refused_by_the_headers_alone(gated: Serving) -> None:
    names = ["base", *dict.fromkeys(adapter.full_name for adapter in gated.adapters.values())]
    with ExitStack() as stack:
        for name, count in zip(names, (2, 2, 1, 1), strict=True):
            stack.enter_context(taken(gated, name, count))
        before = refused_at(gated, "headers")
        assert gated.http.post(CHAT, json=body(CHAT, "oneseek")).status_code == 429
        assert refused_at(gated, "headers") == before + 1


def raw(serving: Serving, head: str, sent: bytes) -> bytes:
    host, port = serving.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + sent)
        received = b""
        while piece := connection.recv(65536):
            received += piece
            if b"\r\n\r\n" in received and received.endswith(b"}"):
                break
        return received


def head(*more: str, key: str = KEYS[0]) -> str:
    lines = [f"POST {CHAT} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Authorization: Bearer {key}", f"X-OneSeek-Adapter: {SV}", *more])


@pytest.mark.parametrize(
    ("announced", "closes"),
    [
        (["Content-Length: 4000000"], True),
        ([f"Content-Length: {SMALL_BODY + 1}"], True),
        ([f"Content-Length: {SMALL_BODY}"], False),
        (["Transfer-Encoding: chunked"], True),
        (["Content-Length: 10", "Expect: 100-continue"], True),
    ],
)
def test_a_refusal_waits_for_no_body(gated: Serving, announced: list[str], closes: bool) -> None:
    with taken(gated, SV, ROWS + QUEUE):
        reply = raw(gated, head(*announced), b"").lower()
    assert reply.startswith(b"http/1.1 429 ")
    assert (b"connection: close" in reply) == closes
    assert b"100 continue" not in reply


def test_a_body_that_comes_after_its_refusal_is_passed_over(gated: Serving) -> None:
    host, port = gated.url.removeprefix("http://").split(":")
    late = json.dumps(body(CHAT)).encode()
    with (
        taken(gated, SV, ROWS + QUEUE),
        socket.create_connection((host, int(port)), timeout=30) as connection,
    ):
        for _ in range(3):
            connection.sendall(head(f"Content-Length: {len(late)}").encode() + b"\r\n\r\n")
            reply = HTTPResponse(connection)
            reply.begin()
            assert (reply.status, len(reply.read()) > 0) == (429, True)
            connection.sendall(late)
            time.sleep(0.02)


def test_a_key_is_asked_for_before_the_queue(gated: Serving) -> None:
    with taken(gated, SV, ROWS + QUEUE):
        assert raw(gated, head("Content-Length: 2", key="wrong"), b"").startswith(b"HTTP/1.1 401 ")


def test_a_request_that_waits_makes_room_for_another_key(gated: Serving) -> None:
    crowd = {"Authorization": f"Bearer {KEYS[1]}"}
    long = body(CHAT, SV, max_tokens=240, ignore_eos=True)
    replies: list[int] = []

    def ask() -> None:
        replies.append(httpx.post(gated.url + CHAT, json=long, headers=crowd, timeout=60).status_code)

    threads = [threading.Thread(target=ask) for _ in range(ROWS + QUEUE)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: places(gated).live == ROWS + QUEUE)
    assert gated.http.post(CHAT, json=body(CHAT)).status_code == 200
    for thread in threads:
        thread.join(60)
    assert sorted(replies) == [200] * (ROWS + QUEUE - 1) + [429]
    assert refused_at(gated, "queue") == 1
    assert places(gated).live == 0


BAD: list[dict[str, Any]] = [
    {},
    {"n": 3},
    {"stream": True},
    {"stream": True, "n": 2},
    {"guided_json": {"type": "nonsense"}},
    {"guided_regex": "a{1,2}"},
    {"max_tokens": 100_000},
    {"logit_bias": {"900": 1}},
    {"temperature": 9},
    {"messages": [{"role": "user", "content": "x" * 5000}]},
    {"messages": []},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]},
]


@pytest.mark.parametrize("more", [{"messages": [{"role": "user", "content": "x" * 5000}]}, {"n": 3}])
def test_what_is_answered_or_refused_leaves_no_place(gated: Serving, more: dict[str, Any]) -> None:
    assert gated.http.post(CHAT, json=body(CHAT) | more).status_code in (200, 400)
    assert eventually(lambda: places(gated).live == 0, 5)


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    asked=st.lists(
        st.tuples(
            st.sampled_from(BAD),
            st.sampled_from([SV, EN, "oneseek", "base"]),
            st.sampled_from([0, 0, 1, 2, 60]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_comes_of_requests_no_place_is_left(
    gated: Serving, asked: list[tuple[dict[str, Any], str, int]]
) -> None:
    """Answered, refused, wrong, or left by their clients after some milliseconds."""

    async def one(client: httpx.AsyncClient, more: dict[str, Any], model: str, leaves: int) -> int:
        long = {"max_tokens": 100, "ignore_eos": True}
        timeout = leaves / 1000 if leaves else 60
        try:
            reply = await client.post(CHAT, json=body(CHAT, model) | long | more, timeout=timeout)
        except httpx.TimeoutException:
            return 499
        return reply.status_code

    async def all_at_once() -> list[int]:
        headers = {"Authorization": f"Bearer {KEYS[0]}"}
        async with httpx.AsyncClient(base_url=gated.url, headers=headers) as client:
            return await asyncio.gather(*(one(client, *each) for each in asked))

    statuses = asyncio.run(all_at_once())
    assert set(statuses) <= {200, 400, 429, 499}
    assert eventually(lambda: places(gated).live == 0)
    state = gated.engine.state()
    assert eventually(lambda: not gated.engine.state().running and not gated.engine.state().waiting), state
    assert not on_loop(gated, lambda: list(vars(places(gated))["_reservations"]))


def test_a_time_limit_leaves_no_place(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> None:
    limits = Settings(
        port=0, max_num_seqs=1, max_queue=4, log_level="critical", request_timeout=0.1, drain_seconds=1
    )
    with served(make_app(tiny_base, voices, graphs, limits), limits, voices) as serving:
        for more in ({}, {"n": 4}, {"stream": True}):
            asked = body(CHAT, SV, max_tokens=240, ignore_eos=True) | more
            assert serving.http.post(CHAT, json=asked).status_code in (200, 504)
            assert eventually(lambda: places(serving).live == 0)
        serving.close_engine()
        assert serving.http.post(CHAT, json=body(CHAT)).status_code == 503
        assert places(serving).live == 0
