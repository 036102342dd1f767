"""Writes a streamed answer of the Responses API as OpenAI's numbered events, from templates that are prepared
once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from server.api.rendering.answers import Answer
from server.api.rendering.response_object import ResponseObject
from server.errors import ErrorReply
from server.request import Delta

_encode = msgspec.json.Encoder().encode


class ResponseEvents:
    """Writes the events of a streamed response, from `response.created` to `response.completed`,
    `response.incomplete` or `response.failed`.

    No `[DONE]` follows, unlike in streams of chat completions.
    """

    def __init__(self, shape: ResponseObject) -> None:
        self._shape = shape
        self._scored = shape.scored_text()
        self._answer = Answer()
        self._number = 0
        self._item = {"item_id": shape.message_id, "output_index": 0, "content_index": 0}
        frame = _event("response.output_text.delta", self._item)[:-1]
        self._before = frame + b',"logprobs":[],"sequence_number":'

    def opening(self) -> bytes:
        """Return the first events of the stream, with an empty response, output item and content part."""
        begun = self._shape.render_start()
        return (
            self._next("response.created", {"response": begun})
            + self._next("response.in_progress", {"response": begun})
            + self._next("response.output_item.added", {"output_index": 0, "item": self._shape.render_item()})
            + self._next("response.content_part.added", self._item | {"part": self._shape.part(Answer())})
        )

    def delta(self, index: int, delta: Delta) -> bytes:
        """Return the event for new text. Called for every delta, so it must be fast."""
        self._answer.add(delta)
        if self._shape.with_logprobs and (delta.logprobs or delta.finish_reason is not None):
            last = delta.finish_reason is not None
            logprobs = self._shape.logprobs(delta.logprobs, delta.text, self._scored, last=last)
            fields = {"delta": delta.text, "logprobs": logprobs}
            return self._next("response.output_text.delta", self._item | fields)
        if not delta.text:
            return b""
        number = self._number
        self._number = number + 1
        return self._before + b'%d,"delta":' % number + _encode(delta.text) + b"}\n\n"

    def closing(self) -> bytes:
        """Return the last events of the stream, with the complete content part, output item and response."""
        answer, shape = self._answer, self._shape
        part, response = shape.part(answer), shape.render_end(answer)
        text = {"text": part["text"], "logprobs": part["logprobs"]}
        return (
            self._next("response.output_text.done", self._item | text)
            + self._next("response.content_part.done", self._item | {"part": part})
            + self._next("response.output_item.done", {"output_index": 0, "item": response["output"][0]})
            + self._next(f"response.{response['status']}", {"response": response})
        )

    def render_failure(self, error: ErrorReply) -> bytes:
        """Return the last events after an error: an event with the error's own code, then the failed
        response.
        """
        told = {"code": error.code, "message": error.message, "param": error.param}
        return self._next("error", told) + self._next(
            "response.failed", {"response": self._shape.render_failure(error)}
        )

    def _next(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        number = self._number
        self._number = number + 1
        return _event(kind, {**fields, "sequence_number": number}) + b"\n\n"


def _event(kind: str, fields: Mapping[str, Any]) -> bytes:
    """Encode an event as its two lines (`event` and `data`), without the blank line that ends the event."""
    return b"event: " + kind.encode() + b"\ndata: " + _encode({"type": kind, **fields})
