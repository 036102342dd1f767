"""Answers `POST /v1/responses`, OpenAI's Responses API, for text only. The server stores no response."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from server.api.endpoints.context import Context, draft_receipt, large_reply, question
from server.api.fields import bounds
from server.api.fields.decode import to_generation
from server.api.fields.responses import RESPONSE_HINTS, RESPONSE_REFUSED, ResponseFields
from server.api.parsing.formats import guided_text
from server.api.parsing.messages import opening, system_prompt, user_turns
from server.api.parsing.receipts import asks_receipt
from server.api.parsing.responses import parse_input
from server.api.parsing.sampling import response_sampling
from server.api.parsing.template_arguments import template_arguments
from server.api.rendering.answers import gather
from server.api.rendering.pieces import encode_pieces
from server.api.rendering.response_events import ResponseEvents
from server.api.rendering.response_object import ResponseObject
from server.api.wire.stream import EventStream
from server.errors import ApiError, ErrorReply, bad_field
from server.exchange import EXCHANGE, Exchange
from server.serving.length import AnswerLength
from server.text.tokenizer import TemplateError


class Responses:
    """Handlers of OpenAI's Responses API."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(self, request: Request) -> Response:
        """Answer a conversation with its next message, all at once or streamed."""
        exchange: Exchange = request.scope[EXCHANGE]
        receipt = asks_receipt(exchange)
        aside = partial(self._context.aside, request)
        value = await self._context.read_question(request, bounds.RESPONSE)
        self._context.check_body(request, value)
        unknown = self._context.unknown_fields(request)
        body = await aside(
            lambda: to_generation(
                value, ResponseFields, refused=RESPONSE_REFUSED, hints=RESPONSE_HINTS, unknown=unknown
            )
        )
        messages = await aside(lambda: parse_input(body.input, body.instructions, unknown))
        turns, system = user_turns(messages), system_prompt(messages)
        asked = question(request, body.model, turns, opening(messages, value), system)
        service, route = await self._context.choose(request, asked)
        generation, info = service.generation, service.runtime.info
        effort = body.reasoning.effort if body.reasoning is not None else None
        readable = service.runtime.tokenizer.template_arguments
        arguments = template_arguments(body.chat_template_kwargs, readable, unknown, effort=effort)
        sampling = response_sampling(body, info, service.defaults)
        fields = ("input", "max_output_tokens")
        length = AnswerLength(body.max_output_tokens, self._context.default_length(service), fields)
        resolution = await generation.choose(exchange, asked, 1, route=route)
        check = partial(generation.grammars.check, asker=exchange.asker)
        sampling = await guided_text(body, sampling, check, aside)
        try:
            prompt = await generation.chat(messages, "input", arguments=arguments)
        except TemplateError as error:
            raise bad_field("input", str(error), code="bad_conversation") from None
        sampling = length.fit(sampling, len(prompt), info)
        draft = draft_receipt(receipt or body.receipt, exchange, service, resolution)
        tokenizer = service.runtime.tokenizer
        shape = ResponseObject(exchange.answer_id, resolution, body, sampling, tokenizer, draft)
        deltas = generation.generate(exchange, resolution, [prompt], [sampling], 1, whole=not body.stream)
        if body.stream:
            return EventStream(deltas, ResponseEvents(shape), generation.aside)
        (answer,) = await gather(deltas, 1)
        return large_reply(lambda: encode_pieces(shape.render_end(answer)), [answer], generation.aside)

    async def stored(self, _request: Request) -> Response:
        """Answer every request for a stored response with 404, since the server stores none."""
        raise ApiError(
            ErrorReply(
                404,
                "This server does not store responses, so they cannot be fetched or deleted later. "
                "Keep the answer to your request.",
                code="not_found",
            )
        )
