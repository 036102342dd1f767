"""Writes a streamed text completion as server-sent events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from server.api.fields.generation import CompletionFields
from server.api.parsing.prompt import CompletionPrompt
from server.api.rendering.answers import RunningUsage, StreamEnds, total
from server.api.rendering.frames import DONE, Frames
from server.api.rendering.logprobs import TextOffsets, completion_logprobs
from server.api.rendering.pieces import encode_pieces
from server.errors import ErrorReply
from server.request import Delta
from server.serving.receipt import Receipt, ReceiptDraft
from server.text.tokenizer import Tokenizer

TOGETHER = 256
"""Maximum number of tokens with log probabilities in one event; an echoed prompt, which may have more, is
split.
"""


class CompletionChunks:
    """Writes the chunks of a streamed text completion: texts, the end of each choice, usage.

    `envelope` holds the fields with which every chunk begins. With `draft` (the unfinished receipt), the last
    chunk has the receipt, which says what answered and why.
    """

    def __init__(
        self,
        envelope: Mapping[str, object],
        body: CompletionFields,
        prompts: Sequence[CompletionPrompt],
        tokenizer: Tokenizer,
        draft: ReceiptDraft | None = None,
    ) -> None:
        count, options = len(prompts) * body.n, body.stream_options
        self._with_usage = options is not None and options.include_usage
        self._frames = Frames.completion(envelope, count, usage=self._with_usage)
        self._running: RunningUsage | None = None
        if options is not None and options.continuous_usage_stats:
            self._running = RunningUsage(sum(len(prompt.tokens) for prompt in prompts), body.n)
            self._frames.set_usage(self._running.so_far)
        self._as_ids = body.return_tokens_as_token_ids
        self._prompts = [prompts[i // body.n].tokens for i in range(count)] if body.return_token_ids else []
        self._begun = [False] * count
        self._n = body.n
        self._echo = [prompts[i // body.n] for i in range(count)] if body.echo else []
        self._logprobs = body.logprobs is not None
        self._tokenizer = tokenizer
        before = [() if body.echo else prompts[i // body.n].tokens for i in range(count)]
        self._offsets = [TextOffsets(tokenizer, tokens) for tokens in before] if self._logprobs else []
        self._ends = StreamEnds(count, draft)

    def opening(self) -> bytes:
        """Return the chunks that echo the prompts. If the request asks for log probabilities, `delta` writes
        the prompts instead.
        """
        if self._logprobs:
            return b""
        return b"".join(self._frames.text(index, prompt.text) for index, prompt in enumerate(self._echo))

    def delta(self, index: int, delta: Delta) -> bytes:
        """Return the chunks for a delta (piece) of a choice: its text, and the choice's end with the last
        delta.
        """
        if self._running is not None:
            self._frames.set_usage(self._running.add(index, delta))
        ids = self._token_ids(index, delta)
        if self._logprobs and (delta.logprobs or delta.prompt_logprobs is not None):
            event = self._with_logprobs(index, delta, ids)
        elif ids:
            event = self._frames.choice(index, _chunk(delta.text, None, None) | ids)
        else:
            event = self._frames.text(index, delta.text) if delta.text else b""
        if delta.finish_reason is None:
            return event
        self._ends.add(index, delta)
        return event + self._frames.choice(index, _chunk("", None, delta.finish_reason), self._receipt)

    def _token_ids(self, index: int, delta: Delta) -> dict[str, Any]:
        """Return vLLM's fields with token ids, if the request asks for them: the prompt's ids in a choice's
        first chunk, and the delta's ids.
        """
        if not self._prompts or not (delta.token_ids or delta.finish_reason):
            return {}
        first = {} if self._begun[index] else {"prompt_token_ids": self._prompts[index]}
        self._begun[index] = True
        return first | ({"token_ids": delta.token_ids} if first or delta.token_ids else {})

    def _with_logprobs(self, index: int, delta: Delta, ids: Mapping[str, Any]) -> bytes:
        text, tokens, first = delta.text, delta.logprobs, None
        if self._echo and delta.prompt_logprobs is not None:
            prompt = self._echo[index]
            text, tokens, first = prompt.text + text, delta.prompt_logprobs + tokens, prompt.tokens[0]
        events: list[bytes] = []
        for start in range(0, max(1, len(tokens)), TOGETHER):
            part = tokens[start : start + TOGETHER]
            known = None if start else first
            shape = completion_logprobs(
                part, self._tokenizer, self._offsets[index], known, as_ids=self._as_ids
            )
            logprobs = msgspec.Raw(b"".join(encode_pieces(shape)))
            chunk = _chunk("", logprobs, None) if start else _chunk(text, logprobs, None) | {**ids}
            events.append(self._frames.choice(index, chunk))
        return b"".join(events)

    @property
    def _receipt(self) -> Receipt | None:
        """The receipt, if all choices have ended and no usage chunk follows; else None."""
        return None if self._with_usage else self._ends.receipt

    def closing(self) -> bytes:
        """Return the end of the stream: the usage chunk, if the request asks for it, and `[DONE]`."""
        usage = total(self._ends.usages, self._n)
        return (self._frames.usage(usage, self._ends.receipt) if self._with_usage else b"") + DONE

    def render_failure(self, error: ErrorReply) -> bytes:
        """Return the events for an error that ends the stream: the error and `[DONE]`."""
        return error.event() + DONE


def _chunk(text: str, logprobs: msgspec.Raw | None, end: str | None) -> dict[str, Any]:
    return {"text": text, "logprobs": logprobs, "finish_reason": end}
