"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.endpoints.context import Context, envelope, question, reply
from server.api.fields.decode import to_generation
from server.api.fields.generation import ChatFields
from server.api.parsing.formats import guided
from server.api.parsing.messages import opening, parse_messages, user_turns
from server.api.parsing.sampling import answer_length, chat_sampling, of_length
from server.api.parsing.tools import ToolUse, read_tools, with_tools
from server.api.rendering.answers import Answer, gather, total
from server.api.rendering.logprobs import chat_logprobs, prompt_logprobs
from server.api.rendering.tool_answers import CallStreams, called_message, end_reason
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


class Chat:
    """The endpoint."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(self, request: Request) -> Response:
        """One conversation → `n` next messages, whole or streamed."""
        settings = self._context.settings
        exchange = exchange_of(request.scope)
        value = await read_body(request.scope, request.receive, settings.max_body, JSON_TYPES)
        body = to_generation(value, ChatFields)
        messages = parse_messages(body.messages)
        service = self._context.service_for(request, body.model)
        generation, tokenizer = service.generation, service.runtime.tokenizer
        sampling = chat_sampling(body, service.runtime.info, service.defaults)
        tools = read_tools(body, tokenizer)
        _check(body)
        sampling = await guided(body, sampling, generation.grammars)
        if tools is not None:
            sampling = await with_tools(tools, sampling, generation.grammars)
        asked = question(request, body.model, user_turns(messages), opening(messages, value))
        resolution = await generation.choose(exchange, asked)
        prompt = await generation.chat(
            messages,
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message,
            tools=tools.tools if tools else (),
        )
        sampling = self._fit(service, body, sampling, len(prompt))
        deltas = generation.generate(
            exchange, resolution, [prompt], [sampling], body.n, body.continue_final_message
        )
        echo = messages[-1]["content"] if body.echo and messages[-1]["role"] == "assistant" else ""
        answer_id = "chatcmpl-" + exchange.answer_id
        if body.stream:
            chunks = ChatChunks(answer_id, resolution, body, echo, tokenizer, tools)
            return EventStream(deltas, chunks, settings.request_timeout)
        async with cancel_on_disconnect(exchange, request.receive, settings.request_timeout):
            answers = await gather(deltas, body.n)
        return reply(
            envelope(answer_id, "chat.completion", resolution)
            | {"choices": [_choice(i, a, body, echo, tokenizer, tools) for i, a in enumerate(answers)]}
            | {"usage": total([answer.usage for answer in answers], body.n)}
            | _prompt_logprobs(answers[0], tokenizer)
        )

    def _fit(self, service: BaseService, body: ChatFields, sampling: Sampling, prompt: int) -> Sampling:
        asked, name = body.max_completion_tokens, "max_completion_tokens"
        if asked is None:
            asked, name = body.max_tokens, "max_tokens"
        default, info = self._context.default_length(service), service.runtime.info
        length = answer_length(asked, default, prompt, info, ("messages", name))
        return of_length(sampling, length)


def _check(body: ChatFields) -> None:
    if body.continue_final_message and body.add_generation_prompt:
        raise bad_field(
            "continue_final_message",
            "continue_final_message needs add_generation_prompt to be false.",
            code="invalid_value",
        )
    for name in ("max_tokens", "max_completion_tokens"):
        if getattr(body, name) == 0:
            raise bad_field(name, f"{name} is 0: ask for at least 1 token.", code="invalid_value")


def _choice(
    index: int, answer: Answer, body: ChatFields, echo: str, tokenizer: Tokenizer, tools: ToolUse | None
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
        "logprobs": chat_logprobs(answer.logprobs, tokenizer) if body.logprobs else None,
        "finish_reason": end,
    }


def _prompt_logprobs(answer: Answer, tokenizer: Tokenizer) -> dict[str, Any]:
    if answer.prompt_logprobs is None:
        return {}
    return {"prompt_logprobs": prompt_logprobs(answer.prompt_logprobs, tokenizer)}


class ChatChunks:
    """A streamed chat completion: role, contents and calls, one end for each choice, usage."""

    def __init__(
        self,
        answer_id: str,
        resolution: Resolution,
        body: ChatFields,
        echo: str,
        tokenizer: Tokenizer,
        tools: ToolUse | None = None,
    ) -> None:
        self._with_usage = body.stream_options is not None and body.stream_options.include_usage
        self._frames = Frames.chat(
            envelope(answer_id, "chat.completion.chunk", resolution), body.n, usage=self._with_usage
        )
        self._logprobs = body.logprobs
        self._echo = echo
        self._tokenizer = tokenizer
        self._forced = tools is not None and tools.forced
        self._calls = None if tools is None else CallStreams(tools, body.n)
        self._usages = [Usage(0, 0, 0)] * body.n

    def opening(self) -> bytes:
        """The role of every choice, and the text that was to be echoed."""
        first = {"role": "assistant", "content": None if self._forced else "", "refusal": None}
        events: list[bytes] = []
        for index in range(len(self._usages)):
            events.append(self._frames.choice(index, _delta(first)))
            if self._echo:
                events.append(self._frames.text(index, self._echo))
        return b"".join(events)

    def delta(self, index: int, delta: Delta) -> bytes:
        """What a choice grew by, and its end."""
        if self._calls is not None:
            event = self._with_calls(self._calls, index, delta)
        elif self._logprobs and delta.logprobs:
            logprobs = chat_logprobs(delta.logprobs, self._tokenizer)
            event = self._frames.choice(index, _delta({"content": delta.text}, logprobs))
        else:
            event = self._frames.text(index, delta.text) if delta.text else b""
        if delta.usage is not None:
            self._usages[index] = delta.usage
        if delta.finish_reason is None:
            return event
        end = delta.finish_reason if self._calls is None else self._calls.end(index, delta.finish_reason)
        return event + self._frames.choice(index, _delta({}, end=end))

    def _with_calls(self, calls: CallStreams, index: int, delta: Delta) -> bytes:
        parts = calls.deltas(index, delta)
        logprobs = None
        if self._logprobs and delta.logprobs:
            logprobs = chat_logprobs(delta.logprobs, self._tokenizer)
            parts = parts or [{}]
        events = [
            self._frames.choice(index, _delta(part, None if place else logprobs))
            for place, part in enumerate(parts)
        ]
        return b"".join(events)

    def closing(self) -> bytes:
        """The usage, where it was asked for, and `[DONE]`."""
        usage = total(self._usages, len(self._usages))
        return (self._frames.usage(usage) if self._with_usage else b"") + DONE

    def render_failure(self, error: ErrorReply) -> bytes:
        """The error that ended it."""
        return error.event() + DONE


def _delta(
    content: dict[str, Any], logprobs: dict[str, Any] | None = None, end: str | None = None
) -> dict[str, Any]:
    return {"delta": content, "logprobs": logprobs, "finish_reason": end}
