"""From the bytes of a request to a plain JSON object, within bounds. Knows no field by name."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn, cast

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from server.errors import ApiError, ErrorReply, bad_field
from server.exchange import header

JSON_TYPES = frozenset({"application/json"})
LEGACY_TYPES = frozenset({"application/json", "application/x-www-form-urlencoded", ""})
"""What existing backends send: `curl -d` names the form type whatever the body is; some name none."""

READ_SECONDS = 30.0
"""A body that has not arrived whole after this long is given up, so that slow senders hold nothing."""

MAX_MENDED = 256 * 1024
"""Bytes of a body up to which half surrogate pairs are mended, which is slower than plain parsing."""


def is_empty(scope: Scope) -> bool:
    """Whether a request announces no body."""
    announced = header(scope, b"content-length") or "0"
    return not announced.strip("0") and header(scope, b"transfer-encoding") is None


async def read_body(scope: Scope, receive: Receive, limit: int, types: frozenset[str]) -> dict[str, Any]:
    """The JSON object in a request's body, at most `limit` bytes of it, whether announced or chunked."""
    media_type = (header(scope, b"content-type") or "").split(";", 1)[0].strip().lower()
    if media_type not in types:
        reply = ErrorReply(
            415,
            f"Content-Type must be application/json, not {media_type[:100]!r}.",
            code="unsupported_media_type",
        )
        raise ApiError(reply)
    try:
        async with asyncio.timeout(READ_SECONDS):
            body = await _read(scope, receive, limit)
    except TimeoutError:
        raise ApiError(ErrorReply(408, "The body did not arrive in time.", code="request_timeout")) from None
    return parse_body(body)


async def _read(scope: Scope, receive: Receive, limit: int) -> bytes:
    announced = header(scope, b"content-length")
    if announced is not None and announced.isdigit() and int(announced[:20]) > limit:
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
    message = f"The body is larger than {limit} bytes."
    return ApiError(ErrorReply(413, message, code="body_too_large", headers=headers))


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` spells. Refuses NaN, infinities, deep nesting and all that is no object."""
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise bad_field(None, "The body is nested too deeply.", code="invalid_json") from None
    except (ValueError, msgspec.DecodeError) as error:
        # Two JSON escapes that form no character: JavaScript clients cut emoji in half.
        if len(body) > MAX_MENDED or (b"\\ud" not in body and b"\\uD" not in body):
            raise _malformed(error) from None
        value = _parse_with_surrogates(body)
    if not isinstance(value, dict):
        raise bad_field(None, "The body must be a JSON object.", code="invalid_json")
    return cast("dict[str, Any]", value)


def _malformed(error: Exception) -> ApiError:
    detail = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:200]
    return bad_field(None, f"The body is not valid JSON: {detail}.", code="invalid_json")


def _parse_with_surrogates(body: bytes) -> object:
    try:
        return _replace_surrogates(json.loads(body.decode(), parse_constant=_refuse_constant))
    except RecursionError:
        raise bad_field(None, "The body is nested too deeply.", code="invalid_json") from None
    except ValueError as error:
        raise _malformed(error) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _replace_surrogates(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_replace_surrogates(item) for item in cast("list[object]", value)]
        case dict():
            pairs = cast("dict[str, object]", value).items()
            return {str(_replace_surrogates(key)): _replace_surrogates(item) for key, item in pairs}
        case _:
            return value
