"""A chat completion as the events of its stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.api.fields.generation import ChatFields
from server.api.parsing.tools import ToolUse
from server.api.rendering.answers import StreamEnds, total
from server.api.rendering.frames import DONE, Frames
from server.api.rendering.logprobs import chat_logprobs
from server.api.rendering.tool_answers import CallStreams
from server.errors import ErrorReply
from server.request import Delta
from server.serving.receipt import Receipt, ReceiptDraft
from server.text.tokenizer import Tokenizer


class ChatChunks:
    """A streamed chat completion: role, contents and calls, one end for each choice, usage.

    `envelope` is what every chunk begins with; with `draft` the last one has the receipt.
    """

    def __init__(
        self,
        envelope: Mapping[str, object],
        body: ChatFields,
        echo: str,
        tokenizer: Tokenizer,
        tools: ToolUse | None = None,
        draft: ReceiptDraft | None = None,
    ) -> None:
        self._with_usage = body.stream_options is not None and body.stream_options.include_usage
        self._frames = Frames.chat(envelope, body.n, usage=self._with_usage)
        self._logprobs = body.logprobs
        self._echo = echo
        self._tokenizer = tokenizer
        self._forced = tools is not None and tools.forced
        self._calls = None if tools is None else CallStreams(tools, body.n)
        self._ends = StreamEnds(body.n, draft)

    def opening(self) -> bytes:
        """The role of every choice, and the text that was to be echoed."""
        first = {"role": "assistant", "content": None if self._forced else "", "refusal": None}
        events: list[bytes] = []
        for index in range(len(self._ends.usages)):
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
        if delta.finish_reason is None:
            return event
        self._ends.add(index, delta)
        end = delta.finish_reason if self._calls is None else self._calls.end(index, delta.finish_reason)
        return event + self._frames.choice(index, _delta({}, end=end), self._receipt)

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

    @property
    def _receipt(self) -> Receipt | None:
        """The receipt, if this end of a choice is the last chunk."""
        return None if self._with_usage else self._ends.receipt

    def closing(self) -> bytes:
        """The usage, where it was asked for, and `[DONE]`."""
        usage = total(self._ends.usages, len(self._ends.usages))
        return (self._frames.usage(usage, self._ends.receipt) if self._with_usage else b"") + DONE

    def render_failure(self, error: ErrorReply) -> bytes:
        """The error that ended it."""
        return error.event() + DONE


def _delta(
    content: dict[str, Any], logprobs: dict[str, Any] | None = None, end: str | None = None
) -> dict[str, Any]:
    return {"delta": content, "logprobs": logprobs, "finish_reason": end}
