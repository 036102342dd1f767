"""Sends answers to HTTP/1.0 clients, which cannot read chunked bodies: a body of unknown length ends when the
connection closes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent


def send_until_closed(cycle: RequestResponseCycle) -> None:
    """Make `cycle` send a body of unknown length without chunks, for a connection that closes after it."""
    send, unframed = cycle.send, False

    async def send_unframed(message: ASGISendEvent) -> None:
        nonlocal unframed
        if message["type"] == "http.response.start":
            unframed = not any(name.lower() == b"content-length" for name, _ in message.get("headers", []))
            if unframed:
                cycle.chunked_encoding = False
        elif unframed and message["type"] == "http.response.body":
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    cycle.send = send_unframed
