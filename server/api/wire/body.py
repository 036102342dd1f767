"""Reads a request's body and parses it as a JSON object of limited size. Does not check the fields'
values.
"""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from server.api.wire.bounds import NO_BOUNDS, SMALL, FieldBound, check_fields
from server.errors import ApiError, ErrorReply, bad_field
from server.exchange import EXCHANGE, Exchange

JSON_TYPES = frozenset({"application/json"})
LEGACY_TYPES = frozenset({"application/json", "application/x-www-form-urlencoded", ""})
"""Media types that `POST /inference/*` accepts: `curl -d` sends JSON with the form type, and some clients
send no type.
"""

READ_SECONDS = 30.0
"""Time limit in seconds for a body to arrive completely, so that slow clients do not hold resources."""

MAX_MENDED = 256 * 1024
"""Maximum size in bytes of a body in which half surrogate pairs are replaced; replacing them makes parsing
slower.
"""


def is_empty(scope: Scope) -> bool:
    """Return True if the request's headers announce no body."""
    exchange: Exchange = scope[EXCHANGE]
    announced = exchange.headers.get(b"content-length", "0")
    return not announced.strip("0") and b"transfer-encoding" not in exchange.headers


async def read_body(scope: Scope, receive: Receive, limit: int, types: frozenset[str]) -> bytes:
    """Read a request's body, sent with a declared length or in chunks.

    Raises `ApiError` (408 if the body is late, 415 for its type or encoding, 413 above `limit` bytes), and
    `ClientDisconnect`.
    """
    exchange: Exchange = scope[EXCHANGE]
    coding = exchange.headers.get(b"content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        headers = {"Accept-Encoding": "identity"}
        raise ApiError(
            ErrorReply(
                415,
                f"Content-Encoding is {coding[:100]!r}, which is not supported; send the body uncompressed.",
                code="unsupported_content_encoding",
                headers=headers,
            )
        )
    media_type = exchange.headers.get(b"content-type", "").split(";", 1)[0].strip().lower()
    if media_type not in types:
        reply = ErrorReply(
            415,
            f"Content-Type must be application/json, not {media_type[:100]!r}.",
            code="unsupported_media_type",
        )
        raise ApiError(reply)
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await _read(exchange.headers.get(b"content-length", ""), receive, limit)
    except TimeoutError:
        raise late_body() from None


def late_body() -> ApiError:
    """Return the error (408) for a body that did not arrive completely in time."""
    return ApiError(
        ErrorReply(
            408,
            "The body of the request did not arrive in time. Send the request again.",
            code="request_timeout",
        )
    )


async def _read(announced: str, receive: Receive, limit: int) -> bytes:
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _too_large(limit: int) -> ApiError:
    # The rest of the body is never read, so the connection cannot be used again.
    headers = {"Connection": "close"}
    message = (
        f"The request's body is larger than {limit} bytes, the server's limit (max_body). "
        "Send a smaller request."
    )
    return ApiError(ErrorReply(413, message, code="body_too_large", headers=headers))


def parse_body(body: bytes, bounds: Mapping[str, FieldBound] = NO_BOUNDS) -> dict[str, Any]:
    """Parse `body` as a JSON object. Each field is checked against its bound before it is decoded.

    A field that has no bound and exceeds `SMALL` is not decoded, but stays `msgspec.Raw`. The caller
    refuses it as too large if it uses the field, and else treats the field as unknown. Raises `ApiError` for
    NaN, infinities, deep nesting, and anything that is not an object.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    check_fields(body)
    try:
        return _decode(body, bounds)
    except RecursionError:
        raise _too_deep() from None
    except (ValueError, msgspec.DecodeError) as error:
        # JSON escapes of half a surrogate pair, from JavaScript clients that cut an emoji in two.
        if len(body) > MAX_MENDED or (b"\\ud" not in body and b"\\uD" not in body):
            raise _malformed(error) from None
    try:
        return _decode(_mend(body), bounds)
    except RecursionError:
        raise _too_deep() from None
    except (ValueError, msgspec.DecodeError) as error:
        raise _malformed(error) from None


def _decode(body: bytes, bounds: Mapping[str, FieldBound]) -> dict[str, Any]:
    try:
        fields = _fields.decode(body)
    except msgspec.ValidationError:
        raise bad_field(None, "The request's body must be a JSON object.", code="invalid_json") from None
    for name, bound in bounds.items():
        if name in fields:
            bound.check(name, fields[name])
    return {
        name: raw if name not in bounds and SMALL.excess(raw) else msgspec.json.decode(raw)
        for name, raw in fields.items()
    }


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
"""Decoder that splits a JSON object into its fields without decoding the fields' values."""

_HALVES = re.compile(
    rb"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u[dD][89a-fA-F][0-9a-fA-F]{2})", re.DOTALL
)
"""Matches JSON escapes of surrogate pairs, complete ones and halves."""
_WHOLE = len(rb"\ud83d\ude00")


def _mend(body: bytes) -> bytes:
    """Replace each half surrogate pair in `body` by U+FFFD."""
    return _HALVES.sub(lambda found: found[0] if len(found[2]) == _WHOLE else found[1] + rb"\ufffd", body)


def _too_deep() -> ApiError:
    return bad_field(
        None,
        "The JSON of the request's body is nested too deeply; send fewer levels of objects and arrays.",
        code="invalid_json",
    )


def _malformed(error: Exception) -> ApiError:
    detail = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:200]
    return bad_field(
        None, f"The request's body is not valid JSON: {detail}. Correct the body.", code="invalid_json"
    )
