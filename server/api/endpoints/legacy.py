"""`POST /inference/*`: what existing backends call. A thin rendering of the one way of a request."""

from __future__ import annotations

import time
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from routing.selection import AUTOMATIC_MODEL
from server.api.endpoints.context import Context, question, reply
from server.api.fields import bounds
from server.api.fields.decode import to_fields
from server.api.fields.generation import LegacyFields
from server.api.parsing.messages import opening_of
from server.api.rendering.answers import gather
from server.api.wire.body import JSON_TYPES, LEGACY_TYPES
from server.errors import bad_field
from server.exchange import EXCHANGE, Exchange
from server.request import Sampling
from server.serving.length import answer_length

DEPRECATED = "@1767225600"
"""1 January 2026 as RFC 9745 writes a date: since when the endpoints named after bases are deprecated."""


class Legacy:
    """The three endpoints, which differ in their names alone."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def oneseek(self, request: Request) -> Response:
        """A question → an answer, by the adapter of its language unless a header names one.

        If only a policy would choose the base, an imported adapter answers, if there is one.
        """
        service = self._context.service_for(request)
        generation, defaults = service.generation, service.defaults
        exchange: Exchange = request.scope[EXCHANGE]
        # A form of any site's page is sent without asking; a program names no origin.
        types = JSON_TYPES if exchange.from_page else LEGACY_TYPES
        value = await self._context.read(request, bounds.LEGACY, types=types)
        body = to_fields(value, LegacyFields)
        if body.max_length is not None and body.max_tokens is not None:
            raise bad_field(
                "max_length", "max_length and max_tokens mean the same; send one.", code="invalid_value"
            )
        asked = question(request, AUTOMATIC_MODEL, (body.text,), opening_of(body.text, value))
        # Those who call this endpoint have always been answered by their own adapter.
        asked = replace(asked, fallback=service.runtime.served.snapshot.imported)
        resolution = await generation.choose(exchange, asked, 1)
        prompt = await generation.chat([{"role": "user", "content": body.text}], "text")
        info = service.runtime.info
        # Callers send a generous constant; it is an upper bound here, never an error.
        bound = body.max_tokens or body.max_length or self._context.default_length(service)
        sampling = Sampling(
            max_tokens=answer_length(None, bound, len(prompt), info, ("text", "max_tokens")),
            temperature=defaults.temperature if body.temperature is None else body.temperature,
            top_p=defaults.top_p if body.top_p is None else body.top_p,
            top_k=defaults.top_k,
            min_p=defaults.min_p,
            repetition_penalty=defaults.repetition_penalty,
        )
        deltas = generation.generate(exchange, resolution, [prompt], [sampling], 1)
        (answer,) = await gather(deltas, 1)
        return reply(
            {
                "response": answer.text,
                "model": resolution.name,
                "adapter": resolution.receipt["X-OneSeek-Adapter"],
                "digest": resolution.digest,
                "language": resolution.language,
                "route": resolution.how,
                "tokens": answer.usage.completion_tokens,
                "latency_ms": round((time.perf_counter() - exchange.started) * 1000, 1),
            }
        )

    async def deprecated(self, request: Request) -> Response:
        """The same under an old name, saying so in every answer, errors included."""
        exchange: Exchange = request.scope[EXCHANGE]
        exchange.receipt |= {
            "Deprecation": DEPRECATED,
            "Link": '</inference/oneseek>; rel="successor-version"',
        }
        return await self.oneseek(request)
