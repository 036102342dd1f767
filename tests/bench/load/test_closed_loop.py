from __future__ import annotations

import asyncio

from aiohttp import web

from bench.load.closed_loop import LoadRequest, LoadResult, closed_loop

TOKEN = b'data: {"choices":[{"text":"a"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"completion_tokens":3}}\n\n'
END = b"data: [DONE]\n\n"


async def answer(request: web.Request) -> web.StreamResponse:
    """Three tokens in two pieces; or a fault, as the prompt asks for."""
    wanted = (await request.json())["prompt"]
    if wanted == "error":
        raise web.HTTPInternalServerError(text="engine died")
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(TOKEN)
    await asyncio.sleep(0.05)
    if wanted == "cut":
        assert request.transport
        request.transport.abort()
        return response
    if wanted == "hang":
        await asyncio.sleep(5)
    await response.write(TOKEN * 2)
    await asyncio.sleep(0.05)
    await response.write(USAGE + (b"" if wanted == "endless" else END))
    return response


async def asked(*prompts: str, streams: int = 1, tokens: int = 3) -> LoadResult:
    app = web.Application()
    app.router.add_post("/v1/completions", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    jobs = [LoadRequest("/v1/completions", {"prompt": prompt}, tokens) for prompt in prompts]
    try:
        return await closed_loop(f"http://{host}:{port}", jobs, streams, timeout=1)
    finally:
        await runner.cleanup()


def test_pieces_events_and_tokens_are_counted_without_the_usage() -> None:
    outcome = asyncio.run(asked("good", "good", "good", streams=2))
    assert (outcome.faults, outcome.tokens, outcome.statuses) == ([], 9, {200: 3})
    for trace in outcome.traces:
        assert (trace.events, trace.tokens) == ([1, 2], 3)
        assert 0.04 < trace.gaps[0] < 1
        assert trace.arrivals[0] > trace.sent
    assert len(outcome.first) == len(outcome.gaps) == 3


def test_every_kind_of_failure_is_a_fault_and_the_rest_goes_on() -> None:
    outcome = asyncio.run(asked("error", "cut", "hang", "endless", "good"))
    assert len(outcome.faults) == 4
    told = " ".join(outcome.faults)
    for kind in ("engine died", "ClientPayloadError", "TimeoutError", "3 tokens instead of 3"):
        assert kind in told
    assert outcome.traces[0].tokens == 3


def test_an_answer_that_is_too_short_is_a_fault() -> None:
    outcome = asyncio.run(asked("good", tokens=4))
    assert outcome.statuses == {200: 1}
    assert len(outcome.faults) == 1
