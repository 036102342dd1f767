"""`POST /v1/completions`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from server.api.endpoints.context import Context, envelope, question, reply
from server.api.fields.decode import to_generation
from server.api.fields.generation import MAX_CHOICES, MAX_PROMPTS, CompletionFields
from server.api.parsing.formats import guided
from server.api.parsing.messages import opening_of
from server.api.parsing.sampling import answer_length, check_ids, completion_sampling, of_length
from server.api.rendering.answers import Answer, gather, total
from server.api.rendering.logprobs import completion_logprobs, prompt_logprobs
from server.api.wire.body import JSON_TYPES, read_body
from server.api.wire.disconnect import cancel_on_disconnect
from server.api.wire.frames import DONE, Frames
from server.api.wire.stream import EventStream
from server.errors import ErrorReply, bad_field
from server.exchange import exchange_of
from server.request import Delta, Sampling, Usage
from server.serving.resolution import Resolution
from server.serving.service import BaseService
from server.text.tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 16
"""OpenAI's, for this endpoint."""


@dataclass(frozen=True, slots=True)
class CompletionPrompt:
    """One prompt, as text and as tokens."""

    text: str
    tokens: tuple[int, ...]


class Completions:
    """The endpoint."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(self, request: Request) -> Response:
        """Prompts → `n` continuations of each, whole or streamed."""
        settings = self._context.settings
        exchange = exchange_of(request.scope)
        value = await read_body(request.scope, request.receive, settings.max_body, JSON_TYPES)
        body = to_generation(value, CompletionFields)
        service = self._context.service_for(request, body.model)
        generation, tokenizer = service.generation, service.runtime.tokenizer
        sampling = completion_sampling(body, service.runtime.info, service.defaults)
        prompts = await read_prompts(body.prompt, service)
        _check(body, len(prompts))
        sampling = await guided(body, sampling, generation.grammars)
        turns = ("\n".join(prompt.text for prompt in prompts),)
        asked = question(request, body.model, turns, opening_of(prompts[0].text, value))
        resolution = await generation.choose(exchange, asked)
        samplings = [self._fit(service, body, sampling, prompt) for prompt in prompts]
        deltas = generation.generate(
            exchange, resolution, [p.tokens for p in prompts], samplings, body.n, True
        )
        answer_id = "cmpl-" + exchange.answer_id
        if body.stream:
            chunks = CompletionChunks(answer_id, resolution, body, prompts, tokenizer)
            return EventStream(deltas, chunks, settings.request_timeout)
        async with cancel_on_disconnect(exchange, request.receive, settings.request_timeout):
            answers = await gather(deltas, len(prompts) * body.n)
        choices = [
            _choice(i, answer, body, prompts[i // body.n], tokenizer) for i, answer in enumerate(answers)
        ]
        usage = total([answer.usage for answer in answers], body.n)
        return reply(
            envelope(answer_id, "text_completion", resolution) | {"choices": choices, "usage": usage}
        )

    def _fit(
        self, service: BaseService, body: CompletionFields, sampling: Sampling, prompt: CompletionPrompt
    ) -> Sampling:
        default = self._context.settings.default_max_tokens or DEFAULT_MAX_TOKENS
        info = service.runtime.info
        fields = ("prompt", "max_tokens")
        length = answer_length(body.max_tokens, default, len(prompt.tokens), info, fields)
        return of_length(sampling, length)


def _check(body: CompletionFields, prompts: int) -> None:
    if body.max_tokens == 0 and not body.echo:
        raise bad_field("max_tokens", "max_tokens is 0, which needs echo to be true.", code="invalid_value")
    if prompts * body.n > MAX_PROMPTS * MAX_CHOICES // 4:
        raise bad_field(
            "n", f"{prompts} prompts with {body.n} choices each are too many.", code="invalid_value"
        )


async def read_prompts(
    prompt: object, service: BaseService, field: str = "prompt", most: int = MAX_PROMPTS
) -> list[CompletionPrompt]:
    """The prompts of OpenAI's four shapes: text, texts, token ids, lists of token ids.

    Raises `ApiError` with the path of a bad one in `field`, and where there are none or more than `most`.
    """
    several = cast("list[object]", prompt) if isinstance(prompt, list) else [prompt]
    if isinstance(prompt, list) and several and _is_id(several[0]):
        return [await _read(several, field, service)]
    if not isinstance(prompt, list):
        return [await _read(prompt, field, service)]
    if not 0 < len(several) <= most:
        raise bad_field(field, f"{field} must hold 1 to {most} texts.", code="invalid_value")
    prompts: list[CompletionPrompt] = []
    for index, item in enumerate(several):
        prompts.append(await _read(item, f"{field}[{index}]", service))
        # Many short texts are as much work as a long one, for which no stream should wait.
        await asyncio.sleep(0)
    return prompts


async def _read(item: object, path: str, service: BaseService) -> CompletionPrompt:
    info = service.runtime.info
    match item:
        case str() if item:
            return CompletionPrompt(item, await service.generation.encode(item, path))
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


class CompletionChunks:
    """A streamed completion: texts, one end for each choice, usage."""

    def __init__(
        self,
        answer_id: str,
        resolution: Resolution,
        body: CompletionFields,
        prompts: Sequence[CompletionPrompt],
        tokenizer: Tokenizer,
    ) -> None:
        count = len(prompts) * body.n
        self._with_usage = body.stream_options is not None and body.stream_options.include_usage
        self._frames = Frames.completion(
            envelope(answer_id, "text_completion", resolution), count, usage=self._with_usage
        )
        self._n = body.n
        self._echo = [prompts[i // body.n] for i in range(count)] if body.echo else []
        self._logprobs = body.logprobs is not None
        self._tokenizer = tokenizer
        self._offsets = [0] * count
        self._usages = [Usage(0, 0, 0)] * count

    def opening(self) -> bytes:
        """The prompts, where they are echoed without log probabilities; with them they come with those."""
        if self._logprobs:
            return b""
        return b"".join(self._frames.text(index, prompt.text) for index, prompt in enumerate(self._echo))

    def delta(self, index: int, delta: Delta) -> bytes:
        """What a choice grew by, and its end."""
        if self._logprobs and (delta.logprobs or delta.prompt_logprobs is not None):
            event = self._with_logprobs(index, delta)
        else:
            event = self._frames.text(index, delta.text) if delta.text else b""
        if delta.usage is not None:
            self._usages[index] = delta.usage
        if delta.finish_reason is None:
            return event
        return event + self._frames.choice(index, _chunk("", None, delta.finish_reason))

    def _with_logprobs(self, index: int, delta: Delta) -> bytes:
        text, tokens, first = delta.text, delta.logprobs, None
        if self._echo and delta.prompt_logprobs is not None:
            prompt = self._echo[index]
            text, tokens, first = prompt.text + text, delta.prompt_logprobs + tokens, prompt.tokens[0]
        shape, self._offsets[index] = completion_logprobs(
            tokens, self._tokenizer, self._offsets[index], first
        )
        return self._frames.choice(index, _chunk(text, shape, None))

    def closing(self) -> bytes:
        """The usage, where it was asked for, and `[DONE]`."""
        usage = total(self._usages, self._n)
        return (self._frames.usage(usage) if self._with_usage else b"") + DONE

    def render_failure(self, error: ErrorReply) -> bytes:
        """The error that ended it."""
        return error.event() + DONE


def _chunk(text: str, logprobs: dict[str, Any] | None, end: str | None) -> dict[str, Any]:
    return {"text": text, "logprobs": logprobs, "finish_reason": end}
