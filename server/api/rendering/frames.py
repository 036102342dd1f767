"""Writes server-sent events from templates that are prepared once per request, so that each delta encodes
only its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from server.serving.receipt import Receipt

DONE = b"data: [DONE]\n\n"

NOTHING: Mapping[str, Any] = {}

_encode = msgspec.json.Encoder().encode


class Frames:
    """Writes the events of one streamed answer, byte for byte like OpenAI's chunks.

    `envelope` holds the fields of every chunk (id, object, created, model, system_fingerprint). `choices` is
    the number of choices. With `usage`, each chunk has `"usage": null`, since a chunk with the usage follows
    at the end.

    The receipt is part of the last chunk, so that clients get no chunk of an unknown kind. The last chunk is
    the usage chunk, or else the end of the last choice.
    """

    __slots__ = ("_after", "_close", "_envelope", "_head", "_open", "_rest", "_tail")

    def __init__(
        self, envelope: Mapping[str, object], choices: int, *, before: bytes, after: bytes, usage: bool
    ) -> None:
        self._envelope = b"data: " + _encode(envelope)[:-1]
        self._head = self._envelope + b',"choices":[{"index":'
        self._rest = b',"usage":null}\n\n' if usage else b"}\n\n"
        self._tail = b"}]" + self._rest
        self._open = [self._head + b"%d," % index + before for index in range(choices)]
        self._after = after + b',"logprobs":null,"finish_reason":null'
        self._close = self._after + self._tail

    @classmethod
    def chat(cls, envelope: Mapping[str, object], choices: int, *, usage: bool) -> Frames:
        """Prepare the templates for the chunks of a chat completion."""
        return cls(envelope, choices, before=b'"delta":{"content":', after=b"}", usage=usage)

    @classmethod
    def completion(cls, envelope: Mapping[str, object], choices: int, *, usage: bool) -> Frames:
        """Prepare the templates for the chunks of a text completion."""
        return cls(envelope, choices, before=b'"text":', after=b"", usage=usage)

    def text(self, index: int, text: str) -> bytes:
        """Return the chunk for new text of a choice. Called for every delta, so it must be fast."""
        return self._open[index] + _encode(text) + self._close

    def choice(
        self,
        index: int,
        fields: Mapping[str, Any],
        receipt: Receipt | None = None,
        *,
        beside: Mapping[str, Any] = NOTHING,
    ) -> bytes:
        """Return a chunk with other fields of a choice than its text, such as its role or end.

        `beside` holds fields that go next to `choices`.
        """
        tail = b"}]," + _encode(beside)[1:-1] + self._rest if beside else self._tail
        chunk = self._head + b"%d," % index + _encode(fields)[1:-1] + tail
        return chunk if receipt is None else _with_receipt(chunk, receipt)

    def set_usage(self, usage: Mapping[str, Any]) -> None:
        """Set the `usage` that the following chunks contain, as vLLM's `continuous_usage_stats` requires."""
        self._rest = b',"usage":' + _encode(usage) + b"}\n\n"
        self._tail = b"}]" + self._rest
        self._close = self._after + self._tail

    def usage(self, usage: Mapping[str, Any], receipt: Receipt | None = None) -> bytes:
        """Return the usage chunk, which has no choices and is the last chunk."""
        chunk = self._envelope + b',"choices":[],"usage":' + _encode(usage) + b"}\n\n"
        return chunk if receipt is None else _with_receipt(chunk, receipt)


def _with_receipt(chunk: bytes, receipt: Receipt) -> bytes:
    return chunk.removesuffix(b"}\n\n") + b',"receipt":' + _encode(receipt) + b"}\n\n"
