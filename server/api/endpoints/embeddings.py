"""Answers `POST /v1/embeddings` with the vectors of an embedding model."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from server.api.endpoints.context import Context, draft_receipt, envelope, question
from server.api.endpoints.prompts import draft_prompts, tokenise_prompts
from server.api.fields import bounds
from server.api.fields.decode import to_generation
from server.api.fields.embeddings import EMBEDDING_HINTS, EMBEDDING_REFUSED, MAX_INPUTS, EmbeddingFields
from server.api.parsing.prompt import CompletionPrompt
from server.api.parsing.receipts import asks_receipt
from server.api.rendering.answers import receipt_field
from server.errors import context_exceeded
from server.exchange import EXCHANGE, Exchange
from server.serving.embeddings import embed_all

TOGETHER = 64
"""Maximum number of texts of one request that are embedded at once, if the setting `max_num_seqs`
is not set.
"""

_encode = msgspec.json.Encoder().encode


class Embeddings:
    """Handler of `POST /v1/embeddings`."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(self, request: Request) -> Response:
        """Turn each text or list of token ids into a vector of unit length."""
        settings = self._context.settings
        exchange: Exchange = request.scope[EXCHANGE]
        receipt = asks_receipt(exchange)
        aside = partial(self._context.aside, request)
        value = await self._context.read_question(request, bounds.EMBEDDING)
        # One request fills a batch, and leaves others their place in the queue.
        most = min(settings.max_num_seqs or TOGETHER, settings.max_queue // 4)
        self._context.check_body(request, value, "input", most)
        unknown = self._context.unknown_fields(request)
        body = to_generation(
            value, EmbeddingFields, refused=EMBEDDING_REFUSED, hints=EMBEDDING_HINTS, unknown=unknown
        )
        # Without texts a language decides nothing: this is the base that is named, or the first that embeds.
        service, _ = await self._context.choose(request, question(request, body.model, ()), "embed")
        service.generation.check_task("embed")
        inputs = await draft_prompts(body.input, service, aside, "input", MAX_INPUTS)
        turns = (" ".join(item.text for item in inputs),)
        together = max(1, min(most, len(inputs)))
        asked = question(request, body.model, turns)
        within = service if any(item.tokens for item in inputs) else None
        service, route = await self._context.choose(request, asked, "embed", within)
        generation, runtime = service.generation, service.runtime
        resolution = await generation.choose(exchange, asked, together, "embed", route)
        inputs = await tokenise_prompts(inputs, service, "input")
        _check(inputs, runtime.info.context)
        prompts = [item.tokens for item in inputs]
        vectors = await embed_all(service.runtime, exchange, resolution, prompts, body.dimensions, together)
        tokens = sum(len(prompt) for prompt in prompts)
        head = envelope("embd-" + exchange.answer_id, "list", resolution)
        head |= {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
        draft = draft_receipt(receipt or body.receipt, exchange, service, resolution)
        head |= receipt_field(draft, ())
        answer = await _render(head, vectors, body.encoding_format)
        return Response(answer, media_type="application/json")


def _check(inputs: Sequence[CompletionPrompt], context: int) -> None:
    """Raise `ApiError` for an input that has more than `context` tokens."""
    for index, item in enumerate(inputs):
        if len(item.tokens) > context:
            path = f"input[{index}]" if len(inputs) > 1 else "input"
            raise context_exceeded(path, context, len(item.tokens))


async def _render(head: dict[str, Any], vectors: Sequence[tuple[float, ...]], encoding: str) -> bytes:
    """Return the answer's JSON. Vectors are encoded one at a time, so that other requests' streams are not
    delayed.
    """
    entries: list[bytes] = []
    for index, vector in enumerate(vectors):
        shown = _base64(vector) if encoding == "base64" else vector
        entries.append(_encode({"object": "embedding", "index": index, "embedding": shown}))
        await asyncio.sleep(0)
    return _encode(head)[:-1] + b',"data":[' + b",".join(entries) + b"]}"


def _base64(vector: Sequence[float]) -> str:
    """Encode a vector in OpenAI's base64 format: 32-bit little-endian floats."""
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode("ascii")
