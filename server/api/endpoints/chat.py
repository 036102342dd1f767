"""Answers `POST /v1/chat/completions` with OpenAI's chat completions, all at once or streamed."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.endpoints.context import (
    Context,
    draft_receipt,
    envelope,
    large_reply,
    question,
)
from server.api.fields import bounds
from server.api.fields.decode import to_generation
from server.api.fields.generation import ChatFields
from server.api.fields.refusals import CHAT_REFUSED
from server.api.parsing.formats import asks_form, guided
from server.api.parsing.messages import opening, parse_messages, system_prompt, user_turns
from server.api.parsing.receipts import asks_receipt
from server.api.parsing.sampling import chat_sampling, check_scores
from server.api.parsing.template_arguments import template_arguments
from server.api.parsing.tools import ToolUse, read_tools, with_tools
from server.api.rendering.answers import Answer, gather, receipt_field, total
from server.api.rendering.chat_chunks import ChatChunks, scored_chat
from server.api.rendering.logprobs import prompt_logprobs
from server.api.rendering.pieces import JsonItems, encode_pieces
from server.api.rendering.scored_text import ScoredText
from server.api.rendering.tool_answers import called_message, end_reason
from server.api.wire.stream import EventStream
from server.errors import bad_field
from server.exchange import EXCHANGE, Exchange
from server.request import Sampling
from server.serving.length import AnswerLength
from server.serving.service import BaseService
from server.text.tokenizer import Tokenizer

TOGETHER = 1024
"""Number of token ids to encode as JSON in one step."""


class Chat:
    """Handler of `POST /v1/chat/completions`."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(self, request: Request) -> Response:
        """Answer a conversation with `n` messages, all at once or streamed."""
        exchange: Exchange = request.scope[EXCHANGE]
        receipt = asks_receipt(exchange)
        aside = partial(self._context.aside, request)
        value = await self._context.read_question(request, bounds.CHAT)
        self._context.check_body(request, value)
        unknown = self._context.unknown_fields(request)
        body = await aside(lambda: to_generation(value, ChatFields, refused=CHAT_REFUSED, unknown=unknown))
        _check(body)
        messages = await aside(lambda: parse_messages(body.messages, unknown))
        turns, system = user_turns(messages), system_prompt(messages)
        asked = question(request, body.model, turns, opening(messages, value), system)
        service, route = await self._context.choose(request, asked)
        generation, tokenizer = service.generation, service.runtime.tokenizer
        sampling, tools = await aside(lambda: _parse(body, service))
        arguments = template_arguments(
            body.chat_template_kwargs,
            tokenizer.template_arguments,
            unknown,
            effort=body.reasoning_effort,
            budget=body.thinking_token_budget,
        )
        length = self._length(service, body)
        resolution = await generation.choose(exchange, asked, body.n, route=route)
        if asks_form(body):
            check = partial(generation.grammars.check, asker=exchange.asker)
            sampling = await guided(body, sampling, check, aside)
            if tools is not None:
                sampling = await with_tools(tools, sampling, check)
        prompt = await generation.chat(
            messages,
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message,
            tools=tools.tools if tools else (),
            arguments=arguments,
        )
        if sampling.prompt_logprobs is not None:
            check_scores(sampling, [len(prompt)], body.n)
        sampling = length.fit(sampling, len(prompt), service.runtime.info)
        deltas = generation.generate(
            exchange,
            resolution,
            [prompt],
            [sampling],
            body.n,
            continues=body.continue_final_message,
            whole=not body.stream,
        )
        echo = messages[-1]["content"] if body.echo and messages[-1]["role"] == "assistant" else ""
        draft = draft_receipt(receipt or body.receipt, exchange, service, resolution)
        answer_id = "chatcmpl-" + exchange.answer_id
        if body.stream:
            head = envelope(answer_id, "chat.completion.chunk", resolution)
            chunks = ChatChunks(head, body, echo, tokenizer, tools, draft, prompt=prompt)
            return EventStream(deltas, chunks, generation.aside)
        answers = await gather(deltas, body.n)
        head = envelope(answer_id, "chat.completion", resolution)
        return large_reply(
            lambda: encode_pieces(
                head
                | {
                    "choices": [
                        _choice(i, a, body, echo, scored_chat(body, tokenizer, tools, prompt), tools)
                        for i, a in enumerate(answers)
                    ]
                }
                | {"usage": total([answer.usage for answer in answers], body.n)}
                | _prompt_logprobs(answers[0], tokenizer)
                | receipt_field(draft, answers)
                | ({"prompt_token_ids": JsonItems(prompt, TOGETHER)} if body.return_token_ids else {})
            ),
            answers,
            generation.aside,
        )

    def _length(self, service: BaseService, body: ChatFields) -> AnswerLength:
        asked, name = body.max_completion_tokens, "max_completion_tokens"
        if asked is None:
            asked, name = body.max_tokens, "max_tokens"
        return AnswerLength(asked, self._context.default_length(service), ("messages", name))


def _parse(body: ChatFields, service: BaseService) -> tuple[Sampling, ToolUse | None]:
    sampling = chat_sampling(body, service.runtime.info, service.defaults)
    return sampling, read_tools(body, service.runtime.tokenizer)


def _check(body: ChatFields) -> None:
    if body.continue_final_message and body.add_generation_prompt:
        raise bad_field(
            "continue_final_message",
            "continue_final_message and add_generation_prompt are both true; set one of the two to false.",
            code="invalid_value",
        )
    for name in ("max_tokens", "max_completion_tokens"):
        if getattr(body, name) == 0:
            raise bad_field(
                name, f"{name} is 0, which gives an empty answer; use at least 1.", code="invalid_value"
            )


def _choice(
    index: int, answer: Answer, body: ChatFields, echo: str, scored: ScoredText, tools: ToolUse | None
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    end: str | None = answer.finish_reason
    if tools is None:
        message["content"] = echo + answer.text
    else:
        said, calls = called_message(answer.text, echo, tools)
        message |= said
        end = end_reason(answer.finish_reason, calls, tools)
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(answer, scored) if body.logprobs else None,
        "finish_reason": end,
        **({"token_ids": JsonItems(answer.token_ids, TOGETHER)} if body.return_token_ids else {}),
    }


def _logprobs(answer: Answer, scored: ScoredText) -> dict[str, Any]:
    return {"content": JsonItems(scored.entries(answer.logprobs, answer.text, last=True)), "refusal": None}


def _prompt_logprobs(answer: Answer, tokenizer: Tokenizer) -> dict[str, Any]:
    if answer.prompt_logprobs is None:
        return {}
    return {"prompt_logprobs": JsonItems(prompt_logprobs(answer.prompt_logprobs, tokenizer))}
