"""Computes the vectors of an embeddings request by passing its tokens and adapters to the engine."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

from server.errors import AdapterNotLoadedError, EngineBusyError, UnsupportedRequestError
from server.exchange import Exchange
from server.live.runtime import Runtime
from server.request import EmbeddingRequest, Share
from server.serving.resolution import Resolution


async def embed_all(
    runtime: Runtime,
    exchange: Exchange,
    resolution: Resolution,
    prompts: Sequence[tuple[int, ...]],
    dimensions: int | None,
    together: int,
) -> list[tuple[float, ...]]:
    """Return the vector of each of `prompts`, in their order. At most `together` prompts are in the engine at
    once.

    The first error cancels all prompts that are not done, as does a cancelled caller. Raises the errors of
    `Engine.embed`.
    """
    vectors: list[tuple[float, ...]] = [()] * len(prompts)
    left = iter(enumerate(prompts))

    async def work() -> None:
        for index, prompt in left:
            request = EmbeddingRequest(
                request_id=uuid.uuid4().hex,
                prompt=prompt,
                adapter_mix=resolution.adapter_mix,
                dimensions=dimensions,
                cache_salt=exchange.tenant,
                share=Share(exchange.tenant, resolution.share),
            )
            vectors[index] = await _vector(runtime, exchange, resolution, request)

    if exchange.held is not None:
        exchange.held.begin()
    workers = [asyncio.create_task(work()) for _ in range(min(max(1, together), len(prompts)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return vectors


async def _vector(
    runtime: Runtime, exchange: Exchange, resolution: Resolution, request: EmbeddingRequest
) -> tuple[float, ...]:
    metrics = runtime.metrics
    exchange.generating = True
    try:
        vector = await _embed(runtime, resolution, request)
    except asyncio.CancelledError:
        metrics.cancelled.labels(exchange.cancel_reason).inc()
        raise
    except (AdapterNotLoadedError, EngineBusyError, UnsupportedRequestError):
        raise
    except Exception:
        metrics.cancelled.labels("error").inc()
        raise
    metrics.tokens.labels(resolution.adapter, resolution.version, "prompt").inc(len(request.prompt))
    exchange.embedded += len(request.prompt)
    return vector


async def _embed(runtime: Runtime, resolution: Resolution, request: EmbeddingRequest) -> tuple[float, ...]:
    """Return a prompt's vector. If its adapter was unloaded after it was chosen, load the adapter again,
    once.
    """
    try:
        return await runtime.engine.embed(request)
    except AdapterNotLoadedError:
        lease = await runtime.residency.acquire(resolution.adapters)
    try:
        return await runtime.engine.embed(request)
    finally:
        lease.close()
