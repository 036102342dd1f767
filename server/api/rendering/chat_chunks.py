"""Writes a streamed chat completion as server-sent events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.api.fields.generation import ChatFields
from server.api.parsing.tools import ToolUse
from server.api.rendering.answers import RunningUsage, StreamEnds, total
from server.api.rendering.frames import DONE, NOTHING, Frames
from server.api.rendering.scored_text import ScoredText
from server.api.rendering.tool_answers import CallStreams
from server.errors import ErrorReply
from server.request import Delta
from server.serving.receipt import Receipt, ReceiptDraft
from server.text.tokenizer import Tokenizer


class ChatChunks:
    """Writes the chunks of a streamed chat completion: roles, texts, tool calls, the end of each choice,
    usage.

    `envelope` holds the fields with which every chunk begins. With `draft` (the unfinished receipt), the last
    chunk has the receipt, which says what answered and why.
    """

    def __init__(
        self,
        envelope: Mapping[str, object],
        body: ChatFields,
        echo: str,
        tokenizer: Tokenizer,
        tools: ToolUse | None = None,
        draft: ReceiptDraft | None = None,
        *,
        prompt: Sequence[int] = (),
    ) -> None:
        options = body.stream_options
        self._with_usage = options is not None and options.include_usage
        self._frames = Frames.chat(envelope, body.n, usage=self._with_usage)
        self._running: RunningUsage | None = None
        if options is not None and options.continuous_usage_stats:
            self._running = RunningUsage(len(prompt), body.n)
            self._frames.set_usage(self._running.so_far)
        self._scored = [scored_chat(body, tokenizer, tools, prompt) for _ in range(body.n * body.logprobs)]
        self._echo = echo
        self._prompt = prompt if body.return_token_ids else None
        self._forced = tools is not None and tools.forced
        self._calls = None if tools is None else CallStreams(tools, body.n)
        self._ends = StreamEnds(body.n, draft)

    def opening(self) -> bytes:
        """Return the first chunks of the stream: the role of each choice, and the text to echo."""
        first = {"role": "assistant", "content": None if self._forced else "", "refusal": None}
        beside = NOTHING if self._prompt is None else {"prompt_token_ids": self._prompt}
        events: list[bytes] = []
        for index in range(len(self._ends.usages)):
            extra = NOTHING if index else beside
            events.append(self._frames.choice(index, _delta(first), beside=extra))
            if self._echo:
                events.append(self._frames.text(index, self._echo))
        return b"".join(events)

    def delta(self, index: int, delta: Delta) -> bytes:
        """Return the chunks for a delta (piece) of a choice: its text or tool calls, and the choice's end
        with the last delta.
        """
        if self._running is not None:
            self._frames.set_usage(self._running.add(index, delta))
        extra = {} if self._prompt is None or not delta.token_ids else {"token_ids": delta.token_ids}
        logprobs = self._logprobs(index, delta)
        if self._calls is not None:
            event = self._with_calls(self._calls.deltas(index, delta), index, logprobs, extra)
        elif logprobs is not None or extra:
            event = self._frames.choice(index, _delta({"content": delta.text}, logprobs) | extra)
        else:
            event = self._frames.text(index, delta.text) if delta.text else b""
        if delta.finish_reason is None:
            return event
        self._ends.add(index, delta)
        end = delta.finish_reason if self._calls is None else self._calls.end(index, delta.finish_reason)
        return event + self._frames.choice(index, _delta({}, end=end), self._receipt)

    def _logprobs(self, index: int, delta: Delta) -> dict[str, Any] | None:
        """Return `logprobs` (`{"content", "refusal"}`) for tokens whose text has arrived; None if there are
        no such tokens.
        """
        if not self._scored:
            return None
        last = delta.finish_reason is not None
        entries = list(self._scored[index].entries(delta.logprobs, delta.text, last=last))
        return {"content": entries, "refusal": None} if entries else None

    def _with_calls(
        self,
        parts: list[dict[str, Any]],
        index: int,
        logprobs: dict[str, Any] | None,
        extra: Mapping[str, Any],
    ) -> bytes:
        if logprobs is not None or extra:
            parts = parts or [{}]
        events = [
            self._frames.choice(index, _delta(part) if place else _delta(part, logprobs) | {**extra})
            for place, part in enumerate(parts)
        ]
        return b"".join(events)

    @property
    def _receipt(self) -> Receipt | None:
        """The receipt, if all choices have ended and no usage chunk follows; else None."""
        return None if self._with_usage else self._ends.receipt

    def closing(self) -> bytes:
        """Return the end of the stream: the usage chunk, if the request asks for it, and `[DONE]`."""
        usage = total(self._ends.usages, len(self._ends.usages))
        return (self._frames.usage(usage, self._ends.receipt) if self._with_usage else b"") + DONE

    def render_failure(self, error: ErrorReply) -> bytes:
        """Return the events for an error that ends the stream: the error and `[DONE]`."""
        return error.event() + DONE


def scored_chat(
    body: ChatFields, tokenizer: Tokenizer, tools: ToolUse | None, prompt: Sequence[int]
) -> ScoredText:
    """Create the object that writes a choice's `logprobs`. If the request has tools, all tokens are listed,
    including those of tool calls, which are not in the choice's text.
    """
    before = prompt if body.continue_final_message else ()
    return ScoredText(tokenizer, before, joins=tools is None, as_ids=body.return_tokens_as_token_ids)


def _delta(
    content: dict[str, Any], logprobs: dict[str, Any] | None = None, end: str | None = None
) -> dict[str, Any]:
    return {"delta": content, "logprobs": logprobs, "finish_reason": end}
