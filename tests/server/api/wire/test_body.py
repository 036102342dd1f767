"""From bytes to an object: sizes, content types, and JSON that is none."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.types import Message, Scope

from server.api.wire import body as module
from server.api.wire.body import JSON_TYPES, LEGACY_TYPES, MAX_MENDED, parse_body, read_body
from server.asgi.middleware import open_exchange
from server.errors import ApiError, ErrorReply

pytestmark = pytest.mark.anyio


class Sender:
    """A client that sends `chunks` and then says no more."""

    def __init__(self, chunks: Sequence[bytes], *, whole: bool = True) -> None:
        self.messages: list[Message] = [
            {"type": "http.request", "body": chunk, "more_body": not whole or index < len(chunks) - 1}
            for index, chunk in enumerate(chunks)
        ]
        self.read = 0

    async def receive(self) -> Message:
        if self.read == len(self.messages):
            return {"type": "http.disconnect"}
        self.read += 1
        return self.messages[self.read - 1]


def scope(*headers: tuple[bytes, bytes], media_type: bytes = b"application/json") -> Scope:
    typed = [(b"content-type", media_type)] if media_type else []
    scope: Scope = {"type": "http", "headers": [*typed, *headers]}
    open_exchange(scope, unused)
    return scope


async def unused(_message: Message) -> None:
    raise AssertionError("nothing is sent")


async def refusal(sender: Sender, scope: Scope, limit: int = 100) -> ErrorReply:
    with pytest.raises(ApiError) as error:
        await read_body(scope, sender.receive, limit, JSON_TYPES)
    return error.value.reply


async def test_a_body_in_chunks_is_joined() -> None:
    sender = Sender([b'{"a"', b"", b":1}"])
    assert await read_body(scope(), sender.receive, 7, JSON_TYPES) == b'{"a":1}'


async def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    sender = Sender([b"x" * 101])
    reply = await refusal(sender, scope((b"content-length", b"101")))
    assert (reply.status, reply.code, sender.read) == (413, "body_too_large", 0)
    assert reply.headers["Connection"] == "close"


@pytest.mark.parametrize("announced", ["²", "1²3", "7_0", "-1", " 7", "seven"])
async def test_an_announced_length_that_is_no_number_decides_nothing(announced: str) -> None:
    sender = Sender([b'{"a":1}'])
    length = (b"content-length", announced.encode("latin-1"))
    assert await read_body(scope(length), sender.receive, 7, JSON_TYPES) == b'{"a":1}'


async def test_a_chunked_body_is_refused_at_the_chunk_that_passes_the_limit() -> None:
    sender = Sender([b"x" * 60] * 1000)
    assert (await refusal(sender, scope())).status == 413
    assert sender.read == 2


async def test_a_false_content_length_gains_nothing() -> None:
    sender = Sender([b"x" * 60] * 1000)
    assert (await refusal(sender, scope((b"content-length", b"5")))).status == 413


@pytest.mark.parametrize("announced", [b"9" * 5000, b"99999999999999999999999"])
async def test_an_absurd_content_length_is_too_large(announced: bytes) -> None:
    assert (await refusal(Sender([b"{}"]), scope((b"content-length", announced)))).status == 413


async def test_a_client_that_leaves_while_it_sends() -> None:
    sender = Sender([b'{"a"'], whole=False)
    with pytest.raises(ClientDisconnect):
        await read_body(scope(), sender.receive, 100, JSON_TYPES)


async def test_a_body_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    async def receive() -> Message:
        await asyncio.sleep(3)
        raise AssertionError("unreachable")

    monkeypatch.setattr(module, "READ_SECONDS", 0.01)
    with pytest.raises(ApiError) as error:
        await read_body(scope(), receive, 100, JSON_TYPES)
    assert error.value.reply.status == 408


@pytest.mark.parametrize(
    ("media_type", "v1", "legacy"),
    [
        (b"application/json", True, True),
        (b"Application/JSON; charset=utf-8", True, True),
        (b"application/x-www-form-urlencoded", False, True),
        (b"", False, True),
        (b"text/plain", False, False),
        (b"multipart/form-data; boundary=x", False, False),
        (b"application/jsonp", False, False),
    ],
)
async def test_content_types(media_type: bytes, v1: bool, legacy: bool) -> None:
    where = scope(media_type=media_type)
    for types, taken in ((JSON_TYPES, v1), (LEGACY_TYPES, legacy)):
        if taken:
            assert await read_body(where, Sender([b"{}"]).receive, 100, types) == b"{}"
        else:
            with pytest.raises(ApiError) as error:
                await read_body(where, Sender([b"{}"]).receive, 100, types)
            assert error.value.reply.status == 415


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"3", b"null", b'"x"', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":1}{', b"{'a':1}", b'{"a":"\xff"}', b"[" * 200_000, b'{"a":' * 200_000,
        b'{"a":"\\ud83d","b":NaN}', b'{"a":"\\ud83d","b":1e999}',
        b'{"a":"\\ud83d"', b'{"a":"\\ud83d","b":' + b"[" * 200_000,
        b'{"a":"\\ud83d\xff"}', b'{"a":' + b"9" * 10_000 + b',"b":"\\ud83d"}',
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_the_clients_mistake(text: bytes) -> None:
    with pytest.raises(ApiError) as error:
        parse_body(text)
    reply = error.value.reply
    assert (reply.status, reply.code) == (400, "invalid_json")
    assert len(reply.message) < 300


def test_half_a_surrogate_pair_is_a_replacement_character() -> None:
    text = rb'{"a":"x\ud83d","\uDE00k":["\ud83d\ude00","\ud83d y"],"n":1.5,"z":null}'
    assert parse_body(text) == {"a": "x�", "�k": ["😀", "� y"], "n": 1.5, "z": None}


def test_large_bodies_are_not_mended() -> None:
    text = b'{"a":"' + rb"\ud83d" * (MAX_MENDED // 6 + 1) + b'"}'
    with pytest.raises(ApiError):
        parse_body(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(text: bytes) -> None:
    status = 200
    try:
        parse_body(text)
    except ApiError as error:
        status = error.reply.status
        error.reply.body()
    assert status in (200, 400)


@given(st.dictionaries(st.text(max_size=4), st.integers(-(2**53), 2**53) | st.text() | st.booleans()))
def test_objects_come_through(value: dict[str, object]) -> None:
    assert parse_body(msgspec.json.encode(value)) == value


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"deflate, gzip", b"GZIP", b"aws-chunked"])
@pytest.mark.parametrize("types", [JSON_TYPES, LEGACY_TYPES])
async def test_a_compressed_body_is_refused_unread(coding: bytes, types: frozenset[str]) -> None:
    sender = Sender([b"{}"])
    with pytest.raises(ApiError) as error:
        await read_body(scope((b"content-encoding", coding)), sender.receive, 100, types)
    assert (error.value.reply.status, error.value.reply.code) == (415, "unsupported_content_encoding")
    assert sender.read == 0


@pytest.mark.parametrize("coding", [b"", b"identity", b" Identity"])
async def test_identity_is_no_compression(coding: bytes) -> None:
    sender = Sender([b"{}"])
    assert await read_body(scope((b"content-encoding", coding)), sender.receive, 100, JSON_TYPES) == b"{}"


def test_a_byte_order_mark_is_passed_over() -> None:
    assert parse_body(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
    with pytest.raises(ApiError):
        parse_body(b'\xef\xbb\xbf\xef\xbb\xbf{"a": 1}')
