"""Answers `POST /v1/completions` with OpenAI's text completions, all at once or streamed."""

from __future__ import annotations

from collections.abc import Iterator
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
from server.api.endpoints.prompts import draft_prompts, tokenise_prompts
from server.api.fields import bounds
from server.api.fields.decode import to_generation
from server.api.fields.generation import MAX_CHOICES, MAX_PROMPTS, CompletionFields
from server.api.fields.refusals import COMPLETION_HINTS, COMPLETION_REFUSED
from server.api.parsing.formats import guided
from server.api.parsing.messages import opening_of
from server.api.parsing.prompt import CompletionPrompt
from server.api.parsing.receipts import asks_receipt
from server.api.parsing.sampling import check_scores, completion_sampling
from server.api.rendering.answers import Answer, gather, receipt_field, total
from server.api.rendering.completion_chunks import CompletionChunks
from server.api.rendering.logprobs import TextOffsets, completion_logprobs, prompt_logprobs
from server.api.rendering.pieces import JsonItems, encode_pieces
from server.api.wire.stream import EventStream
from server.errors import bad_field
from server.exchange import EXCHANGE, Exchange
from server.serving.length import AnswerLength
from server.serving.prompts import choose_for_prompts
from server.text.tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 16
"""Default of `max_tokens` for `/v1/completions`, as in OpenAI's API."""
TOGETHER = 1024
"""Number of token ids to encode as JSON in one step."""


class Completions:
    """Handler of `POST /v1/completions`."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(self, request: Request) -> Response:
        """Continue each prompt `n` times, and answer with all texts at once or streamed."""
        settings = self._context.settings
        exchange: Exchange = request.scope[EXCHANGE]
        receipt = asks_receipt(exchange)
        aside = partial(self._context.aside, request)
        value = await self._context.read_question(request, bounds.COMPLETION)
        self._context.check_body(request, value, "prompt")
        unknown = self._context.unknown_fields(request)
        body = await aside(
            lambda: to_generation(
                value, CompletionFields, refused=COMPLETION_REFUSED, hints=COMPLETION_HINTS, unknown=unknown
            )
        )
        service = self._context.service_for(request, body.model)
        sampling = completion_sampling(body, service.runtime.info, service.defaults)
        prompts = await draft_prompts(body.prompt, service, aside)
        _check(body, len(prompts))
        each = [
            question(request, body.model, (prompt.text,), opening_of(prompt.text, value))
            for prompt in prompts
        ]
        together = "\n".join(prompt.text for prompt in prompts)
        asked = question(request, body.model, (together,), opening_of(prompts[0].text, value))
        within = service if any(prompt.tokens for prompt in prompts) else None
        service, route = await self._context.choose(request, asked, within=within)
        sampling = completion_sampling(body, service.runtime.info, service.defaults)
        generation, tokenizer = service.generation, service.runtime.tokenizer
        answering = await choose_for_prompts(exchange, generation, each, body.n, route)
        resolution = answering.resolution
        check = partial(generation.grammars.check, asker=exchange.asker)
        sampling = await guided(body, sampling, check, aside)
        prompts = await tokenise_prompts(prompts, service, special=body.add_special_tokens)
        check_scores(sampling, [len(prompt.tokens) for prompt in prompts], body.n)
        default = settings.default_max_tokens or DEFAULT_MAX_TOKENS
        length = AnswerLength(body.max_tokens, default, ("prompt", "max_tokens"))
        samplings = [length.fit(sampling, len(prompt.tokens), service.runtime.info) for prompt in prompts]
        deltas = answering.generate([one.tokens for one in prompts], samplings, body.n, whole=not body.stream)
        draft = draft_receipt(receipt or body.receipt, exchange, service, resolution)
        answer_id = "cmpl-" + exchange.answer_id
        if body.stream:
            head = envelope(answer_id, "text_completion", resolution)
            chunks = CompletionChunks(head, body, prompts, tokenizer, draft)
            return EventStream(deltas, chunks, generation.aside)
        answers = await gather(deltas, len(prompts) * body.n)
        head = envelope(answer_id, "text_completion", resolution)
        usage = total([answer.usage for answer in answers], body.n)

        def render() -> Iterator[bytes]:
            choices = [_choice(i, a, body, prompts[i // body.n], tokenizer) for i, a in enumerate(answers)]
            return encode_pieces(head | {"choices": choices, "usage": usage} | receipt_field(draft, answers))

        return large_reply(render, answers, generation.aside)


def _check(body: CompletionFields, prompts: int) -> None:
    if body.max_tokens == 0 and not body.echo:
        raise bad_field(
            "max_tokens",
            "max_tokens is 0, which gives no text; use at least 1, or set echo to true to score the prompt.",
            code="invalid_value",
        )
    if prompts * body.n > MAX_PROMPTS * MAX_CHOICES // 4:
        raise bad_field(
            "n",
            f"{prompts} prompts with n={body.n} choices each are too many; send fewer prompts in a request.",
            code="invalid_value",
        )


def _choice(
    index: int, answer: Answer, body: CompletionFields, prompt: CompletionPrompt, tokenizer: Tokenizer
) -> dict[str, Any]:
    logprobs = None
    if body.logprobs is not None:
        as_ids = body.return_tokens_as_token_ids
        first, before = (prompt.tokens[0], answer.prompt_logprobs or ()) if body.echo else (None, ())
        offsets = TextOffsets(tokenizer, () if body.echo else prompt.tokens)
        scored = [*before, *answer.logprobs]
        logprobs = completion_logprobs(scored, tokenizer, offsets, first, as_ids=as_ids)
    choice: dict[str, Any] = {
        "index": index,
        "text": (prompt.text if body.echo else "") + answer.text,
        "logprobs": logprobs,
        "finish_reason": answer.finish_reason,
    }
    if body.prompt_logprobs is not None and answer.prompt_logprobs is not None:
        choice["prompt_logprobs"] = JsonItems(prompt_logprobs(answer.prompt_logprobs, tokenizer))
    if body.return_token_ids:
        choice["prompt_token_ids"] = JsonItems(prompt.tokens, TOGETHER)
        choice["token_ids"] = JsonItems(answer.token_ids, TOGETHER)
    return choice
