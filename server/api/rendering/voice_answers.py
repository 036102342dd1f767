"""Renders the answers of several models to one question as JSON, whole or as events of a stream."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from routing.detect import Detection
from server.api.rendering.answers import Answer
from server.api.rendering.error_replies import reply_for
from server.api.rendering.frames import DONE
from server.errors import ErrorReply
from server.request import Delta
from server.serving.receipt import Receipt
from server.serving.voices.consensus import Consensus
from server.serving.voices.voice import Voice

_encode = msgspec.json.Encoder().encode
_BEFORE_TEXT = b'data: {"type":"delta","voice":%d,"text":'


@dataclass(slots=True)
class VoiceAnswer:
    """The answer of one model, as far as it has arrived."""

    number: int
    voice: Voice
    answer: Answer = field(default_factory=Answer)
    error: ErrorReply | None = None
    cause: Exception | None = None
    """The exception that ended the answer; the error reply in `error` is made from it. None if none did."""
    language: str | None = None
    confidence: float | None = None
    compared_in: str | None = None
    """Language in which the answer is compared with others: the detected language, or else the likeliest;
    None if unknown.
    """

    def add(self, item: Delta | Exception) -> None:
        """Add a delta of the answer, or the error that ended it."""
        if isinstance(item, Delta):
            self.answer.add(item)
            if item.finish_reason is not None:
                self._end(200)
        else:
            self.cause, self.error = item, reply_for(item)
            self._end(self.error.status)

    def _end(self, status: int) -> None:
        exchange = self.voice.exchange
        exchange.status, exchange.ended = status, time.perf_counter()

    def read(self, detection: Detection) -> None:
        """Store the language that was detected in the answer's text."""
        self.language, self.confidence = detection.language, round(detection.confidence, 4)
        self.compared_in = detection.language or (detection.likeliest if detection.told else None)

    @property
    def begun(self) -> bool:
        """True once the first piece of the model's answer has arrived."""
        return bool(self.answer.texts)

    @property
    def ended(self) -> bool:
        """True once the model's answer is complete or has failed."""
        return self.answered or self.error is not None

    @property
    def answered(self) -> bool:
        """True once the model's answer is complete, without an error."""
        return self.answer.finish_reason is not None and self.error is None

    def introduce(self) -> dict[str, Any]:
        """Return the model's index, names and kind, for the first event of a stream."""
        voice = self.voice
        return {"voice": self.number, "model": voice.name, "asked": voice.asked, "kind": voice.kind}

    def to_json(self, *, with_text: bool) -> dict[str, Any]:
        """Return a model's complete answer as JSON. A model that failed has an error and no text."""
        usage, answered = self.answer.usage, self.answered
        text = {"text": self.answer.text if answered else None} if with_text else {}
        return {
            **self.introduce(),
            "status": "answered" if answered else "failed",
            **text,
            "language": self.language,
            "language_confidence": self.confidence,
            "finish_reason": self.answer.finish_reason if answered else None,
            "tokens": {
                "prompt": usage.prompt_tokens,
                "cached": usage.cached_tokens,
                "completion": usage.completion_tokens,
            }
            if answered
            else None,
            "latency_ms": round((self.voice.exchange.ended - self.voice.exchange.started) * 1000, 1),
            "receipt": self._receipt() if answered else None,
            "error": None if self.error is None else _error(self.error),
        }

    def _receipt(self) -> Receipt | None:
        return self.voice.complete_receipt(self.answer.usage, self.answer.timing)


def whole_answer(answer_id: str, voices: Sequence[VoiceAnswer], consensus: Consensus) -> dict[str, Any]:
    """Return the answer to a multi-model request that is not streamed: each model's answer, and their
    consensus.
    """
    return {
        "id": answer_id,
        "object": "multi_model.answer",
        "created": int(time.time()),
        "voices": [voice.to_json(with_text=True) for voice in voices],
        "consensus": consensus,
    }


def opening_event(answer_id: str, voices: Sequence[VoiceAnswer]) -> bytes:
    """Return the first event, which lists the models that answer."""
    introduced = [voice.introduce() for voice in voices]
    return _event("voices", {"id": answer_id, "created": int(time.time()), "voices": introduced})


def delta_event(number: int, text: str) -> bytes:
    """Return the event for new text of a model's answer. Called for every delta, so it must be fast."""
    return _BEFORE_TEXT % number + _encode(text) + b"}\n\n" if text else b""


def voice_event(voice: VoiceAnswer) -> bytes:
    """Return the event for the end of a model's answer, without the text, which was sent before."""
    return _event("voice", voice.to_json(with_text=False))


def closing_events(consensus: Consensus) -> bytes:
    """Return the last events: the consensus of the answers, and the end of the stream."""
    return _event("consensus", {"consensus": consensus}) + DONE


def failure_events(error: ErrorReply) -> bytes:
    """Return the last events of a stream that fails: the error, and the end of the stream."""
    return error.event() + DONE


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return b"data: " + _encode({"type": kind, **fields}) + b"\n\n"


def _error(error: ErrorReply) -> dict[str, Any]:
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
