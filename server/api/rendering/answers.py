"""Collects the deltas (pieces) of a request's choices into whole answers, and counts their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from server.request import Delta, Deltas, FinishReason, Timing, TokenLogprob, Usage
from server.serving.receipt import Receipt, ReceiptDraft

TOGETHER = 256
"""Number of tokens whose log probabilities are freed from memory in one step."""


@dataclass(slots=True)
class Answer:
    """The text, tokens and finish reason of one choice, as far as they have arrived."""

    texts: list[str] = field(default_factory=list[str])
    token_ids: list[int] = field(default_factory=list[int])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    prompt_logprobs: list[TokenLogprob] | None = None
    finish_reason: FinishReason | None = None
    usage: Usage = field(default_factory=lambda: Usage(0, 0, 0))
    timing: Timing | None = None

    @property
    def text(self) -> str:
        """The whole text of the answer."""
        return "".join(self.texts)

    def add(self, delta: Delta) -> None:
        """Add a delta (a piece) of the answer."""
        if delta.anew:
            self.texts, self.token_ids, self.logprobs, self.prompt_logprobs = [], [], [], None
        self.texts.append(delta.text)
        self.token_ids += delta.token_ids
        self.logprobs += delta.logprobs
        if delta.prompt_logprobs is not None:
            self.prompt_logprobs = list(delta.prompt_logprobs)
        if delta.finish_reason is not None:
            self.finish_reason = delta.finish_reason
        if delta.usage is not None:
            self.usage = delta.usage
        if delta.timing is not None:
            self.timing = delta.timing

    @property
    def scored(self) -> int:
        """Number of prompt and answer tokens that have log probabilities."""
        return len(self.logprobs) + len(self.prompt_logprobs or ())


class StreamEnds:
    """Collects the token usage of each choice of a stream when the choice ends. Makes the receipt once all
    choices have ended.
    """

    def __init__(self, choices: int, draft: ReceiptDraft | None) -> None:
        self.usages = [Usage(0, 0, 0)] * choices
        self._timings: list[Timing | None] = [None] * choices
        self._left = choices
        self._draft = draft

    def add(self, index: int, delta: Delta) -> None:
        """Add the last delta of a choice, with its usage and timing."""
        self._left -= 1
        self._timings[index] = delta.timing
        if delta.usage is not None:
            self.usages[index] = delta.usage

    @property
    def receipt(self) -> Receipt | None:
        """The receipt; None until the last choice has ended, or if the request did not ask for a receipt."""
        if self._draft is None or self._left:
            return None
        return self._draft.complete(self.usages, self._timings)


def receipt_field(draft: ReceiptDraft | None, answers: Sequence[Answer]) -> dict[str, Receipt]:
    """Return the field `receipt` for answers that are not streamed; empty if the request did not ask for a
    receipt.
    """
    if draft is None:
        return {}
    timings = [answer.timing for answer in answers]
    return {"receipt": draft.complete([answer.usage for answer in answers], timings)}


def release(answers: Sequence[Answer]) -> None:
    """Free the log probabilities of `answers` in small steps, since freeing a million objects at once takes
    long.
    """
    for answer in answers:
        for scores in (answer.logprobs, answer.prompt_logprobs or []):
            while scores:
                del scores[-TOGETHER:]


class RunningUsage:
    """Sums the token usage of all choices so far, for vLLM's `continuous_usage_stats`. Each prompt has `n`
    choices.
    """

    def __init__(self, prompt_tokens: int, n: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._n = n
        self._completion_tokens = 0
        self._cached: dict[int, int] = {}
        """Maps the index of each prompt to its number of cached tokens, which is known once the prompt's
        first choice has begun.
        """

    def add(self, index: int, delta: Delta) -> dict[str, Any]:
        """Add a delta of a choice, and return OpenAI's `usage` so far."""
        self._completion_tokens += len(delta.token_ids)
        if delta.cached_tokens is not None and index % self._n == 0:
            self._cached[index] = delta.cached_tokens
        return self.so_far

    @property
    def so_far(self) -> dict[str, Any]:
        """OpenAI's `usage` so far. `prompt_tokens_details` is None until the number of cached tokens of a
        prompt is known.
        """
        prompt, completion = self._prompt_tokens, self._completion_tokens
        counts = {"prompt_tokens": prompt, "completion_tokens": completion}
        details = {"cached_tokens": sum(self._cached.values())} if self._cached else None
        return counts | {"total_tokens": prompt + completion, "prompt_tokens_details": details}


async def gather(stream: Deltas, count: int) -> list[Answer]:
    """Read `stream` to its end, and return the whole answers of its `count` choices."""
    answers = [Answer() for _ in range(count)]
    async with aclosing(stream):
        async for deltas in stream:
            for index, delta in deltas:
                answers[index].add(delta)
    return answers


def total(usages: Sequence[Usage], n: int) -> dict[str, Any]:
    """Sum OpenAI's `usage` over all choices. Each prompt is counted once, not once for each of its `n`
    choices.
    """
    firsts = usages[::n]
    prompt = sum(usage.prompt_tokens for usage in firsts)
    completion = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in firsts)},
    }
