"""`POST /v1/completions`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from server.api.endpoints.context import Context, envelope, question, reply
from server.api.fields.decode import to_generation
from server.api.fields.generation import MAX_CHOICES, MAX_PROMPTS, CompletionFields
from server.api.parsing.formats import guided
from server.api.parsing.messages import opening_of
from server.api.parsing.prompt import CompletionPrompt
from server.api.parsing.sampling import check_ids, completion_sampling
from server.api.rendering.answers import Answer, gather, total
from server.api.rendering.completion_chunks import CompletionChunks
from server.api.rendering.logprobs import completion_logprobs, prompt_logprobs
from server.api.wire.body import JSON_TYPES, read_body
from server.api.wire.stream import EventStream
from server.errors import bad_field
from server.exchange import EXCHANGE, Exchange
from server.serving.length import AnswerLength
from server.serving.service import BaseService
from server.text.tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 16
"""OpenAI's, for this endpoint."""


class Completions:
    """The endpoint."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(self, request: Request) -> Response:
        """Prompts → `n` continuations of each, whole or streamed."""
        settings = self._context.settings
        exchange: Exchange = request.scope[EXCHANGE]
        value = await read_body(request.scope, request.receive, settings.max_body, JSON_TYPES)
        self._context.check_body(request, value, "prompt")
        body = to_generation(value, CompletionFields)
        service = self._context.service_for(request, body.model)
        generation, tokenizer = service.generation, service.runtime.tokenizer
        sampling = completion_sampling(body, service.runtime.info, service.defaults)
        prompts = await draft_prompts(body.prompt, service)
        _check(body, len(prompts))
        turns = ("\n".join(prompt.text for prompt in prompts),)
        asked = question(request, body.model, turns, opening_of(prompts[0].text, value))
        resolution = await generation.choose(exchange, asked, len(prompts) * body.n)
        sampling = await guided(body, sampling, generation.grammars)
        prompts = await tokenise_prompts(prompts, service)
        default = settings.default_max_tokens or DEFAULT_MAX_TOKENS
        length = AnswerLength(body.max_tokens, default, ("prompt", "max_tokens"))
        samplings = [length.fit(sampling, len(prompt.tokens), service.runtime.info) for prompt in prompts]
        deltas = generation.generate(
            exchange, resolution, [p.tokens for p in prompts], samplings, body.n, True
        )
        answer_id = "cmpl-" + exchange.answer_id
        if body.stream:
            head = envelope(answer_id, "text_completion", resolution)
            chunks = CompletionChunks(head, body, prompts, tokenizer)
            return EventStream(deltas, chunks)
        answers = await gather(deltas, len(prompts) * body.n)
        choices = [
            _choice(i, answer, body, prompts[i // body.n], tokenizer) for i, answer in enumerate(answers)
        ]
        usage = total([answer.usage for answer in answers], body.n)
        return reply(
            envelope(answer_id, "text_completion", resolution) | {"choices": choices, "usage": usage}
        )


def _check(body: CompletionFields, prompts: int) -> None:
    if body.max_tokens == 0 and not body.echo:
        raise bad_field("max_tokens", "max_tokens is 0, which needs echo to be true.", code="invalid_value")
    if prompts * body.n > MAX_PROMPTS * MAX_CHOICES // 4:
        raise bad_field(
            "n", f"{prompts} prompts with {body.n} choices each are too many.", code="invalid_value"
        )


async def draft_prompts(
    prompt: object, service: BaseService, field: str = "prompt", most: int = MAX_PROMPTS
) -> list[CompletionPrompt]:
    """The prompts of OpenAI's four shapes: text, texts, token ids, lists of token ids. No text is tokenised.

    Raises `ApiError` with the path of a bad one in `field`, and where there are none or more than `most`.
    """
    several = cast("list[object]", prompt) if isinstance(prompt, list) else [prompt]
    if isinstance(prompt, list) and several and _is_id(several[0]):
        return [_read(several, field, service)]
    if not isinstance(prompt, list):
        return [_read(prompt, field, service)]
    if not 0 < len(several) <= most:
        raise bad_field(field, f"{field} must hold 1 to {most} texts.", code="invalid_value")
    prompts: list[CompletionPrompt] = []
    for index, item in enumerate(several):
        prompts.append(_read(item, f"{field}[{index}]", service))
        if prompts[-1].tokens:  # which became text
            await asyncio.sleep(0)
    return prompts


async def tokenise_prompts(
    prompts: Sequence[CompletionPrompt], service: BaseService, field: str = "prompt"
) -> list[CompletionPrompt]:
    """The same with the tokens of each text. Raises `ApiError` for one that cannot fit."""
    done: list[CompletionPrompt] = []
    for index, prompt in enumerate(prompts):
        tokens = prompt.tokens
        if not tokens:
            path = f"{field}[{index}]" if len(prompts) > 1 else field
            tokens = await service.generation.encode(prompt.text, path)
        done.append(CompletionPrompt(prompt.text, tokens))
        # Many short texts are as much work as a long one, for which no stream should wait.
        await asyncio.sleep(0)
    return done


def _read(item: object, path: str, service: BaseService) -> CompletionPrompt:
    info = service.runtime.info
    match item:
        case str() if item:
            return CompletionPrompt(item, ())
        case list() if len(cast("list[object]", item)) > info.context:
            message = f"The context is {info.context} tokens; {path} has more."
            raise bad_field(path, message, code="context_length_exceeded")
        case list() if item and all(_is_id(token) for token in cast("list[object]", item)):
            tokens = check_ids(cast("list[int]", item), path, info)
            return CompletionPrompt(service.runtime.tokenizer.decode(tokens), tokens)
        case _:
            message = f"{path} must be a text or an array of token ids, and not empty."
            raise bad_field(path, message, code="invalid_type")


def _is_id(item: object) -> bool:
    return type(item) is int and item >= 0


def _choice(
    index: int, answer: Answer, body: CompletionFields, prompt: CompletionPrompt, tokenizer: Tokenizer
) -> dict[str, Any]:
    logprobs = None
    if body.logprobs is not None:
        first, before = (prompt.tokens[0], answer.prompt_logprobs or ()) if body.echo else (None, ())
        logprobs, _ = completion_logprobs([*before, *answer.logprobs], tokenizer, 0, first)
    choice: dict[str, Any] = {
        "index": index,
        "text": (prompt.text if body.echo else "") + answer.text,
        "logprobs": logprobs,
        "finish_reason": answer.finish_reason,
    }
    if body.prompt_logprobs is not None and answer.prompt_logprobs is not None:
        choice["prompt_logprobs"] = prompt_logprobs(answer.prompt_logprobs, tokenizer)
    return choice
