"""A small server that answers as it is told: real HTTP, made-up tokens."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

GAP = 0.005
"""Seconds between tokens."""


class AnsweringServer:
    """Streams `max_tokens` tokens; a prompt that begins with a fault's name gets that fault."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.hung_up = 0
        self.peers: list[int] = []
        """The client's port of each request."""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.peers.append(request.transport.get_extra_info("peername")[1] if request.transport else 0)
        fault = body["messages"][-1]["content"].split()[0]
        if fault == "refused":
            return web.json_response({"error": {"message": "full"}}, status=429)
        await asyncio.sleep(0.3 if fault == "late" else GAP)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "X-OneSeek-Adapter": "sv@v1"}
        )
        await response.prepare(request)
        made = body["max_tokens"] - (fault == "short")
        try:
            for number in range(made):
                finish = "length" if number == made - 1 else None
                await self._event(response, choices=[{"delta": {"content": "ord "}, "finish_reason": finish}])
                await asyncio.sleep(GAP)
        except ConnectionError:
            self.hung_up += 1
            raise
        if fault != "cut":
            usage = {"prompt_tokens": 5, "completion_tokens": made}
            await self._event(response, choices=[], usage=usage)
            await response.write(b"data: [DONE]\n\n")
        return response

    async def _event(self, response: web.StreamResponse, **event: object) -> None:
        await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


@contextmanager
def answering() -> Generator[tuple[str, AnsweringServer]]:
    """Its address and itself, until the block ends."""
    loop, made = asyncio.new_event_loop(), AnsweringServer()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[web.AppRunner, int]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", made.chat)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    runner, port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"http://127.0.0.1:{port}", made
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
