"""The answers of several voices as JSON: whole, and as the events of a stream."""

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
    """What has come of one voice."""

    number: int
    voice: Voice
    answer: Answer = field(default_factory=Answer)
    error: ErrorReply | None = None
    cause: Exception | None = None
    """What `error` was made of."""
    language: str | None = None
    confidence: float | None = None
    compared_in: str | None = None
    """The language that it is compared in: the decided one, else the likeliest, if anything tells one."""

    def add(self, item: Delta | Exception) -> None:
        """Take what has come: more of the answer, or why there is no more."""
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
        """Take what its text says of its language."""
        self.language, self.confidence = detection.language, round(detection.confidence, 4)
        self.compared_in = detection.language or (detection.likeliest if detection.told else None)

    @property
    def begun(self) -> bool:
        """True once anything of its answer has come."""
        return bool(self.answer.texts)

    @property
    def ended(self) -> bool:
        """True once nothing more comes."""
        return self.answered or self.error is not None

    @property
    def answered(self) -> bool:
        """True once its answer is whole."""
        return self.answer.finish_reason is not None and self.error is None

    def introduce(self) -> dict[str, Any]:
        """Who it is."""
        voice = self.voice
        return {"voice": self.number, "model": voice.name, "asked": voice.asked, "kind": voice.kind}

    def to_json(self, *, with_text: bool) -> dict[str, Any]:
        """The voice once it has ended. A failed one has an error and no text."""
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
    """The answer that is not streamed."""
    return {
        "id": answer_id,
        "object": "multi_model.answer",
        "created": int(time.time()),
        "voices": [voice.to_json(with_text=True) for voice in voices],
        "consensus": consensus,
    }


def opening_event(answer_id: str, voices: Sequence[VoiceAnswer]) -> bytes:
    """Who answers."""
    introduced = [voice.introduce() for voice in voices]
    return _event("voices", {"id": answer_id, "created": int(time.time()), "voices": introduced})


def delta_event(number: int, text: str) -> bytes:
    """What a voice's answer grew by. The hot path."""
    return _BEFORE_TEXT % number + _encode(text) + b"}\n\n" if text else b""


def voice_event(voice: VoiceAnswer) -> bytes:
    """A voice has ended; its text has been sent."""
    return _event("voice", voice.to_json(with_text=False))


def closing_events(consensus: Consensus) -> bytes:
    """What the voices agree on, and the end."""
    return _event("consensus", {"consensus": consensus}) + DONE


def failure_events(error: ErrorReply) -> bytes:
    """The error that ended all of it, and the end."""
    return error.event() + DONE


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return b"data: " + _encode({"type": kind, **fields}) + b"\n\n"


def _error(error: ErrorReply) -> dict[str, Any]:
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
