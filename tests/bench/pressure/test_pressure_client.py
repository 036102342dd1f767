"""The client of the benchmarks under pressure: whole answers, one connection for many requests."""

from __future__ import annotations

import asyncio
import json

import pytest

from bench.pressure.client import chat, pool

pytestmark = pytest.mark.anyio

WHOLE = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\nretry-after: 2\r\n\r\nfull"
CHUNKED = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"5\r\ndata:\r\n", b"0\r\n\r\n"]


async def test_answers_are_read_whole_and_connections_are_kept() -> None:
    connections, received, ended = 0, list[bytes](), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            received.append(await reader.readexactly(length))
            for piece in CHUNKED if len(received) % 2 else [WHOLE]:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            ended.set()

    server = await asyncio.start_server(quietly, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        async with pool(url) as asked:
            request = chat("Hej", 7, model="sv", key="k")
            replies = [await asked.ask(request) for _ in range(4)]
        await ended.wait()
        await asyncio.sleep(0)
    assert connections == 1
    assert [reply.status for reply in replies] == [200, 429, 200, 429]
    assert b"data:" in replies[0].body
    assert replies[1].body == b"full"
    assert all(0 < reply.first <= reply.total for reply in replies)
    assert json.loads(received[0])["max_tokens"] == 7
