"""Answers `POST /inference/*`, the API of existing OneSeek installations, by the same steps as chat
completions.
"""

from __future__ import annotations

import time
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from routing.selection import AUTOMATIC_MODEL
from server.api.endpoints.context import Context, draft_receipt, question, reply
from server.api.fields import bounds
from server.api.fields.decode import to_fields
from server.api.fields.generation import LegacyFields
from server.api.parsing.messages import opening_of
from server.api.parsing.receipts import asks_receipt
from server.api.rendering.answers import gather, receipt_field
from server.api.wire.body import JSON_TYPES, LEGACY_TYPES
from server.errors import bad_field
from server.exchange import EXCHANGE, Exchange
from server.request import Sampling
from server.serving.length import answer_length
from server.serving.sampling_defaults import LEAST_TOP_P

DEPRECATED = "@1767225600"
"""Value of the header `Deprecation` (RFC 9745) for the endpoints that are named after base models: 1 January
2026.
"""


class Legacy:
    """Handlers of `POST /inference/oneseek` and of its two deprecated names."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def oneseek(self, request: Request) -> Response:
        """Answer a question with the adapter of its language, or with the adapter that the header names.

        If neither the header nor the language decides, an adapter that was imported from an earlier
        installation answers instead of the base, if there is one.
        """
        exchange: Exchange = request.scope[EXCHANGE]
        receipt = asks_receipt(exchange)
        # A form of any site's page is sent without asking; a program names no origin.
        types = JSON_TYPES if exchange.from_page else LEGACY_TYPES
        value = await self._context.read(request, bounds.LEGACY, types=types)
        body = to_fields(value, LegacyFields)
        if body.max_length is not None and body.max_tokens is not None:
            raise bad_field(
                "max_length",
                "max_length and max_tokens are both set and mean the same; send one of them.",
                code="invalid_value",
            )
        asked = question(request, AUTOMATIC_MODEL, (body.text,), opening_of(body.text, value))
        # Those who call this endpoint have always been answered by their own adapter.
        imported = (one.runtime.served.snapshot.imported for one in self._context.services)
        asked = replace(asked, fallback=next(filter(None, imported), None))
        service, route = await self._context.choose(request, asked)
        generation, defaults = service.generation, service.defaults
        resolution = await generation.choose(exchange, asked, 1, route=route)
        prompt = await generation.chat([{"role": "user", "content": body.text}], "text")
        info = service.runtime.info
        # Callers send a generous constant; it is an upper bound here, never an error.
        bound = body.max_tokens or body.max_length or self._context.default_length(service)
        sampling = Sampling(
            max_tokens=answer_length(None, bound, len(prompt), info, ("text", "max_tokens")),
            temperature=defaults.temperature if body.temperature is None else body.temperature,
            top_p=max(LEAST_TOP_P, defaults.top_p if body.top_p is None else body.top_p),
            top_k=defaults.top_k,
            min_p=defaults.min_p,
            repetition_penalty=defaults.repetition_penalty,
        )
        deltas = generation.generate(exchange, resolution, [prompt], [sampling], 1, whole=True)
        (answer,) = await gather(deltas, 1)
        draft = draft_receipt(receipt or body.receipt, exchange, service, resolution)
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
            | receipt_field(draft, [answer])
        )

    async def deprecated(self, request: Request) -> Response:
        """Answer a request to a deprecated name of the endpoint, with a Deprecation header on every answer,
        including errors.
        """
        exchange: Exchange = request.scope[EXCHANGE]
        exchange.receipt |= {
            "Deprecation": DEPRECATED,
            "Link": '</inference/oneseek>; rel="successor-version"',
        }
        return await self.oneseek(request)
