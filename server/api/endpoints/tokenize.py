"""Answers `POST /tokenize` and `POST /detokenize` in vLLM's format."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from server.api.endpoints.context import Context, question, reply
from server.api.fields import bounds
from server.api.fields.decode import to_fields, to_generation
from server.api.fields.generation import DetokenizeFields, TokenizeFields
from server.api.fields.refusals import HINTS, TOKENIZE_REFUSED
from server.api.parsing.messages import parse_messages, user_turns
from server.api.parsing.sampling import check_ids
from server.api.parsing.template_arguments import template_arguments
from server.api.parsing.tools import shown_tools
from server.api.rendering.pieces import JsonItems, encode_pieces
from server.api.wire.large import LargeReply
from server.errors import bad_field
from server.exchange import EXCHANGE
from server.serving.service import BaseService

TOGETHER = 1024
"""Number of tokens to encode as JSON in one step."""


class Tokenize:
    """Handlers of `/tokenize` and `/detokenize`. All adapters share their base's tokenizer, but an unknown
    `model` is still refused.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def tokenize(self, request: Request) -> Response:
        """Tokenize a prompt or a conversation. The answer is `{"count", "max_model_len", "tokens",
        "token_strs"}`.
        """
        aside = partial(self._context.aside, request)
        value = await self._context.read_question(request, bounds.TOKENIZE)
        unknown = self._context.unknown_fields(request)
        body = await aside(
            lambda: to_generation(value, TokenizeFields, refused=TOKENIZE_REFUSED, unknown=unknown)
        )
        if (body.prompt is None) == (body.messages is None):
            raise bad_field(
                "prompt",
                "Exactly one of prompt and messages must be set; set one and remove the other.",
                code="invalid_value",
            )
        _check(body)
        given = body.messages or []
        messages = await aside(lambda: parse_messages(given, unknown))
        turns = (body.prompt or "",) if body.messages is None else user_turns(messages)
        service = await self._service(request, body.model, turns)
        generation, runtime = service.generation, service.runtime
        if body.messages is not None:
            tokens = await generation.chat(
                messages,
                add_generation_prompt=body.add_generation_prompt,
                continue_final_message=body.continue_final_message,
                tools=await aside(lambda: shown_tools(body.tools)),
                arguments=template_arguments(
                    body.chat_template_kwargs,
                    runtime.tokenizer.template_arguments,
                    unknown,
                    effort=body.reasoning_effort,
                ),
            )
        else:
            special = body.add_special_tokens is not False
            tokens = await generation.encode(body.prompt or "", "prompt", special)
        texts = (runtime.tokenizer.token_text(token) for token in tokens) if body.return_token_strs else None
        answer = {
            "count": len(tokens),
            "max_model_len": runtime.info.context,
            "tokens": JsonItems(tokens, TOGETHER),
            "token_strs": texts and JsonItems(texts, TOGETHER),
        }
        if len(tokens) <= TOGETHER:
            return Response(b"".join(encode_pieces(answer)), media_type="application/json")
        return LargeReply(encode_pieces(answer), generation.aside)

    async def detokenize(self, request: Request) -> Response:
        """Turn token ids into text, without special tokens. The answer is `{"prompt"}`."""
        aside = partial(self._context.aside, request)
        value = await self._context.read_question(request, bounds.TOKENIZE)
        unknown = self._context.unknown_fields(request)
        body = await aside(lambda: to_fields(value, DetokenizeFields, hints=HINTS, unknown=unknown))
        service = await self._service(request, body.model, ())
        generation = service.generation
        tokens = await aside(lambda: check_ids(body.tokens, "tokens", service.runtime.info))
        return reply({"prompt": await generation.decode(tokens)})

    async def _service(self, request: Request, model: str, turns: tuple[str, ...]) -> BaseService:
        """Return the base whose tokenizer belongs to `model`. Raises the same errors as a chat request for
        that `model`.
        """
        if self._context.bases.several:
            service, _ = await self._context.choose(request, question(request, model, turns))
            return service
        service = self._context.services[0]
        service.generation.check_name(request.scope[EXCHANGE], question(request, model, ()))
        return service


def _check(body: TokenizeFields) -> None:
    if body.messages is None and body.tools:
        raise bad_field(
            "tools",
            "tools cannot be combined with prompt; send messages instead of prompt.",
            code="invalid_value",
        )
    if body.messages is not None and body.add_special_tokens:
        raise bad_field(
            "add_special_tokens",
            "add_special_tokens works with prompt only; with messages, the chat template adds the special "
            "tokens. Remove add_special_tokens, or send prompt.",
            code="unsupported_parameter",
        )
