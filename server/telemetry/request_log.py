"""Writes one log line for each request, as JSON or for people. Questions and answers are included only if the
settings ask for that."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

import msgspec
from starlette.types import Scope

from server.exchange import Exchange, KeptContent
from server.metrics.metrics import UNCOUNTED
from server.telemetry.entry import RequestEntry, Work, describe, describe_work
from server.telemetry.lines import LineWriter
from server.telemetry.records import format_time

ENTRY_BYTES = 1024
"""Approximate bytes of a log line that waits to be written, without question and answers."""
MOST_CONTENT = 1024 * 1024
"""Maximum bytes of a request, and maximum characters of an answer, in a log line."""

_encode = msgspec.json.Encoder().encode


class RequestLog:
    """Writes a log line for each request when it has been answered, except health checks, scrapes and the web
    page.
    """

    def __init__(self, writer: LineWriter, *, as_json: bool, content: bool = False) -> None:
        self._writer = writer
        self._render = as_line if as_json else as_text
        self.looks_early = content
        """True if questions and answers are logged, so that they are kept from the start. See
        `RequestObserver`.
        """

    def begin(self, exchange: Exchange, scope: Scope) -> None:
        """Start to keep the request's question and answers. See `RequestObserver`."""
        exchange.content = KeptContent()

    def end(self, exchange: Exchange) -> None:
        """Write the request's log line. See `RequestObserver`."""
        if exchange.endpoint in UNCOUNTED:
            return
        said = _said(exchange)
        size = ENTRY_BYTES + sum(map(_size, said))
        self._writer.write_later(
            partial(self._render, describe(exchange), describe_work(exchange), said), size
        )

    async def close(self) -> None:
        """Write the log lines that are not written yet, then stop. See `RequestObserver`."""
        await asyncio.to_thread(self._writer.close)


def open_request_log(descriptor: int, *, as_json: bool, content: bool) -> RequestLog:
    """Open the log of requests on a file descriptor. Dropped lines are replaced by a line with their
    number.
    """
    writer = LineWriter(descriptor, dropped=dropped_line if as_json else dropped_text)
    return RequestLog(writer, as_json=as_json, content=content)


def as_line(entry: RequestEntry, work: Work, said: tuple[KeptContent, ...] = ()) -> bytes:
    """Return a request as one line of JSON."""
    parts = [_encode(entry), _encode(work), _encode(_content(said)) if said else b"{}"]
    inner = b",".join(part[1:-1] for part in parts if part != b"{}")
    return b"{" + inner + b"}\n"


def as_text(entry: RequestEntry, work: Work, said: tuple[KeptContent, ...] = ()) -> bytes:
    """Return a request as one line for people, without control characters."""
    parts = [entry.time[11:19], str(entry.status), entry.method, entry.endpoint]
    parts += [entry.error] if entry.error else []
    parts += [f"asked={entry.asked!r}"] if entry.asked else []
    parts += [entry.cancelled] if entry.cancelled else []
    for one in entry.voices or (work,):
        parts += _work_text(one)
    parts += [f"{entry.seconds:.3f}s", f"id={entry.id}"]
    parts += [f"key={entry.key}"] if entry.key else []
    if said:
        parts.append(_encode(_content(said)).decode())
    text = " ".join(parts)
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text).encode() + b"\n"


def dropped_line(count: int) -> bytes:
    """Return the JSON line that replaces dropped lines. It holds their number."""
    return _encode({"event": "dropped", "time": format_time(), "lines": count}) + b"\n"


def dropped_text(count: int) -> bytes:
    """Return the text line that replaces dropped lines. It holds their number."""
    return (
        f"{format_time()[11:19]} {count} lines were dropped because standard output was not read\n".encode()
    )


def _work_text(work: Work) -> list[str]:
    if work.adapter is None:
        return []
    parts = [work.adapter]
    if work.route is not None:
        parts.append(work.route if work.language is None else f"{work.route}:{work.language}")
    if work.prompt_tokens is not None:
        parts.append(f"{work.prompt_tokens}+{work.completion_tokens or 0} tokens")
    if work.first_token_seconds is not None:
        parts.append(f"first {work.first_token_seconds:.3f}s")
    return parts


def _said(exchange: Exchange) -> tuple[KeptContent, ...]:
    """Return the question and answers of a request, then those of each model that answered it."""
    kept = (one.content for one in (exchange, *exchange.voices))
    return tuple(one for one in kept if one is not None)


def _size(content: KeptContent) -> int:
    return len(content.body) + sum(len(piece) for pieces in content.answers.values() for piece in pieces)


def _content(said: tuple[KeptContent, ...]) -> Mapping[str, object]:
    answers = ["".join(one.answers[index])[:MOST_CONTENT] for one in said for index in sorted(one.answers)]
    return {**_request(said[0].body), "answers": answers}


def _request(body: bytes) -> Mapping[str, object]:
    if len(body) > MOST_CONTENT:
        return {"request_bytes": len(body)}
    try:  # on one line, whatever the client's own layout is
        return {"request": msgspec.Raw(msgspec.json.format(body, indent=-1))} if body else {}
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {"request": body.decode("utf-8", "replace")}
