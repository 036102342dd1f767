"""Read the answer to a request event by event, and check that it matches the request."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bench.load.records import PlannedRequest

DATA = b"data:"
SHORT = 200
"""Maximum characters of an answer that an error message quotes."""


class EventDelta(msgspec.Struct):
    """The object `delta` in a chunk of a streamed chat."""

    role: str | None = None
    content: str | None = None


class EventChoice(msgspec.Struct):
    """One choice in a chunk of a chat or text completion."""

    delta: EventDelta | None = None
    text: str | None = None
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct):
    """OpenAI's object `prompt_tokens_details`, with the number of prompt tokens found in a cache."""

    cached_tokens: int | None = None


class EventUsage(msgspec.Struct):
    """Token counts of an answer, as the server reports them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None


class EventReceipt(msgspec.Struct):
    """The part of OneSeek's receipt (an object in the answer that says how it was made) that a client cannot
    measure itself: the time in the queue.
    """

    queue_seconds: float | None = None


class StreamEvent(msgspec.Struct):
    """One event of a streamed answer."""

    choices: list[EventChoice] = []
    model: str = ""
    usage: EventUsage | None = None
    receipt: EventReceipt | None = None
    error: Any = None


_decode = msgspec.json.Decoder(StreamEvent).decode


@dataclass(slots=True)
class AnswerReader:
    """Reads one streamed answer, and holds what has been read so far."""

    usage: EventUsage | None = None
    receipt: EventReceipt | None = None
    model: str = ""
    finish: str = ""
    done: bool = False
    fault: str = ""
    parts: list[str] = field(default_factory=list[str])
    _rest: bytes = b""

    @property
    def text(self) -> str:
        """The text of the answer that has been read so far."""
        return "".join(self.parts)

    def feed(self, piece: bytes) -> int:
        """Read a chunk of the answer's body. Return the number of events with text or tool calls that it
        completes.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return sum(self._line(line) for line in lines if line.startswith(DATA))

    def _line(self, line: bytes) -> bool:
        data = line[len(DATA) :].strip()
        if data == b"[DONE]":
            self.done = True
            return False
        try:
            event = _decode(data)
        except msgspec.DecodeError as error:
            self.fault = (
                self.fault
                or f"an event of the stream is not a chunk of an answer: {error}: "
                f"{data[:SHORT].decode(errors='replace')}"
            )
            return False
        if event.error is not None:
            self.fault = self.fault or f"the stream holds an error: {event.error}"[:SHORT]
        self.usage = event.usage or self.usage
        self.receipt = event.receipt or self.receipt
        self.model = event.model or self.model
        tokens = [self._choice(choice) for choice in event.choices]
        return any(tokens)

    def _choice(self, choice: EventChoice) -> bool:
        text = choice.text if choice.delta is None else choice.delta.content
        if choice.finish_reason:
            self.finish = choice.finish_reason
        if text:
            self.parts.append(text)
        # A special token has no text: some servers send an empty event for it, and others none.
        return bool(text) or (text is None and not choice.finish_reason and not _names_role(choice))

    def check(self, asked: PlannedRequest) -> str:
        """Compare the complete answer with its request `asked`, and return what is wrong with it as text.
        Empty if the answer is right.
        """
        if self.fault:
            return self.fault
        if not self.done:
            return "the stream of the answer ended without [DONE]"
        if self.usage is None:
            return "the stream has no token counts (usage), although the request set include_usage"
        made = self.usage.completion_tokens
        if asked.tokens and made != asked.tokens:
            return f"the answer has {made} tokens instead of {asked.tokens}; finish_reason {self.finish!r}"
        if not made or not self.finish:
            return f"the answer is incomplete: {made} tokens and finish_reason {self.finish!r}"
        return _check_json(self.text, asked.keys) if asked.check == "json" else ""


def _names_role(choice: EventChoice) -> bool:
    """True if the event names the role of the speaker, as the first event of a chat does. It may come before
    any token.
    """
    return choice.delta is not None and bool(choice.delta.role)


def _check_json(text: str, keys: tuple[str, ...]) -> str:
    try:
        value = json.loads(text)
    except ValueError as error:
        return f"the answer is not JSON: {error}: {text[:SHORT]!r}"
    missing = [key for key in keys if not isinstance(value, dict) or key not in value]
    return f"the answer's JSON object lacks the key {missing[0]!r}: {text[:SHORT]!r}" if missing else ""


def read_voices(body: bytes, asked: PlannedRequest) -> tuple[EventUsage, int, str]:
    """Read the answers of several models to one question from the body of a response. Return the sum of their
    token counts, the sum of their words, and what is wrong with them, which is empty if nothing is.
    """
    try:
        voices: list[dict[str, Any]] = json.loads(body)["voices"]
        counts = [voice["tokens"] or {} for voice in voices]
        usage = EventUsage(
            sum(c.get("prompt", 0) for c in counts), sum(c.get("completion", 0) for c in counts)
        )
        words = sum(len((voice["text"] or "").split()) for voice in voices)
    except (ValueError, KeyError, TypeError) as error:
        return EventUsage(), 0, f"the response is not a list of several models' answers: {error!r}"
    for voice, count in zip(voices, counts, strict=True):
        if voice["status"] != "answered":
            return (
                usage,
                words,
                f"the model {voice['model']} gave no answer: {voice['status']}: {voice['error']}"[:SHORT],
            )
        if asked.tokens and count.get("completion") != asked.tokens:
            return (
                usage,
                words,
                f"the answer of {voice['model']} has {count} instead of {asked.tokens} tokens",
            )
    return usage, words, ""
