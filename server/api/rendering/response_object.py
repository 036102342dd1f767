"""Renders OpenAI's `Response` object for an answer that has started, failed or ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from server.api.fields.responses import ResponseFields
from server.api.rendering.answers import Answer, receipt_field
from server.api.rendering.pieces import JsonItems, encode_pieces
from server.api.rendering.scored_text import ScoredText
from server.errors import ErrorReply
from server.request import Sampling, TokenLogprob, Usage
from server.serving.generation import Resolution
from server.serving.receipt import ReceiptDraft
from server.text.tokenizer import Tokenizer


class ResponseObject:
    """Renders OpenAI's `Response` object for one request. Its only output item is a message with one text
    part.
    """

    def __init__(
        self,
        answer_id: str,
        resolution: Resolution,
        body: ResponseFields,
        sampling: Sampling,
        tokenizer: Tokenizer,
        draft: ReceiptDraft | None = None,
    ) -> None:
        self.message_id = "msg_" + answer_id
        self.with_logprobs = body.with_logprobs
        self._tokenizer = tokenizer
        self._draft = draft
        self._frame: dict[str, Any] = {
            "id": "resp_" + answer_id,
            "object": "response",
            "created_at": int(time.time()),
            "model": resolution.name,
            "system_fingerprint": resolution.fingerprint,
        } | _echo(body, sampling)

    def render_start(self) -> dict[str, Any]:
        """Return the response before any text has arrived, with the status `in_progress`."""
        return self._state("in_progress")

    def render_failure(self, error: ErrorReply) -> dict[str, Any]:
        """Return the failed response after an error in the stream. The error's exact code is in the `error`
        event before it.
        """
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        return self._state("failed") | {"error": {"code": code, "message": error.message}}

    def render_end(self, answer: Answer) -> dict[str, Any]:
        """Return the complete or incomplete response with the whole answer."""
        if answer.finish_reason == "length":
            state = self._state("incomplete") | {"incomplete_details": {"reason": "max_output_tokens"}}
        else:
            state = self._state("completed") | {"completed_at": int(time.time())}
        state |= {"output": [self.message(answer)], "usage": _usage(answer.usage)}
        return state | receipt_field(self._draft, [answer])

    def message(self, answer: Answer) -> dict[str, Any]:
        """Return the response's output item, a message, with the answer's text."""
        status = "incomplete" if answer.finish_reason == "length" else "completed"
        return self._message(status, [self.part(answer)])

    def render_item(self) -> dict[str, Any]:
        """Return the response's output item, a message, before it has a content part."""
        return self._message("in_progress", [])

    def part(self, answer: Answer) -> dict[str, Any]:
        """Return the content part of the output item: the answer's text, with log probabilities if
        requested.
        """
        logprobs = self.logprobs(answer.logprobs, answer.text, self.scored_text(), last=True)
        return {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": logprobs}

    def scored_text(self) -> ScoredText:
        """Create the converter that turns tokens into entries of `logprobs` as their text arrives."""
        return ScoredText(self._tokenizer)

    def logprobs(
        self, tokens: Sequence[TokenLogprob], text: str, scored: ScoredText, *, last: bool
    ) -> msgspec.Raw:
        """Return the JSON of `[{"token", "logprob", "bytes", "top_logprobs"}]`; an empty array if the request
        does not ask for log probabilities.
        """
        entries = scored.entries(tokens, text, last=last) if self.with_logprobs else ()
        return msgspec.Raw(b"".join(encode_pieces(JsonItems(entries))))

    def _state(self, status: str) -> dict[str, Any]:
        return self._frame | {
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "output": [],
            "usage": None,
        }

    def _message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }


def _echo(body: ResponseFields, sampling: Sampling) -> dict[str, Any]:
    """Return the request's parameters that the answer repeats, with the values that were applied."""
    text = body.text
    return {
        "background": False,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata,
        "parallel_tool_calls": body.parallel_tool_calls,
        "previous_response_id": None,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": False,
        "temperature": sampling.temperature,
        "text": {"format": (text and text.format) or {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": body.top_logprobs,
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "user": body.user,
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        # Clients do not pay for writing to the cache.
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
