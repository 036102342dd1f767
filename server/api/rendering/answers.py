"""Gathers the deltas of a request's choices: whole answers, and the tokens they took."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from server.request import Delta, Deltas, FinishReason, Timing, TokenLogprob, Usage
from server.serving.receipt import Receipt, ReceiptDraft

TOGETHER = 256
"""Tokens whose log probabilities are freed in one step."""


@dataclass(slots=True)
class Answer:
    """One choice, as far as it has come."""

    texts: list[str] = field(default_factory=list[str])
    token_ids: list[int] = field(default_factory=list[int])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    prompt_logprobs: list[TokenLogprob] | None = None
    finish_reason: FinishReason | None = None
    usage: Usage = field(default_factory=lambda: Usage(0, 0, 0))
    timing: Timing | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.texts)

    def add(self, delta: Delta) -> None:
        """Take one more delta."""
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
        """Tokens with log probabilities."""
        return len(self.logprobs) + len(self.prompt_logprobs or ())


class StreamEnds:
    """How the choices of a stream end: what they took, and the receipt once the last one has ended."""

    def __init__(self, choices: int, draft: ReceiptDraft | None) -> None:
        self.usages = [Usage(0, 0, 0)] * choices
        self._timings: list[Timing | None] = [None] * choices
        self._left = choices
        self._draft = draft

    def add(self, index: int, delta: Delta) -> None:
        """Take the last delta of a choice."""
        self._left -= 1
        self._timings[index] = delta.timing
        if delta.usage is not None:
            self.usages[index] = delta.usage

    @property
    def receipt(self) -> Receipt | None:
        """None if the request did not ask for it, and before the last choice has ended."""
        if self._draft is None or self._left:
            return None
        return self._draft.complete(self.usages, self._timings)


def receipt_field(draft: ReceiptDraft | None, answers: Sequence[Answer]) -> dict[str, Receipt]:
    """`receipt` of whole answers; nothing if the request did not ask for it."""
    if draft is None:
        return {}
    timings = [answer.timing for answer in answers]
    return {"receipt": draft.complete([answer.usage for answer in answers], timings)}


def release(answers: Sequence[Answer]) -> None:
    """Free the log probabilities bit by bit: freeing a million objects at once takes long."""
    for answer in answers:
        for scores in (answer.logprobs, answer.prompt_logprobs or []):
            while scores:
                del scores[-TOGETHER:]


class RunningUsage:
    """vLLM's `continuous_usage_stats`: the usage of all choices so far, cached tokens aside."""

    def __init__(self, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._completion_tokens = 0

    def add(self, delta: Delta) -> dict[str, Any]:
        """The usage with one more delta."""
        self._completion_tokens += len(delta.token_ids)
        return self.so_far

    @property
    def so_far(self) -> dict[str, Any]:
        """OpenAI's `usage`; what came from the cache is known at the end."""
        prompt, completion = self._prompt_tokens, self._completion_tokens
        counts = {"prompt_tokens": prompt, "completion_tokens": completion}
        return counts | {"total_tokens": prompt + completion, "prompt_tokens_details": None}


async def gather(stream: Deltas, count: int) -> list[Answer]:
    """The `count` whole answers of `stream`."""
    answers = [Answer() for _ in range(count)]
    async with aclosing(stream):
        async for deltas in stream:
            for index, delta in deltas:
                answers[index].add(delta)
    return answers


def total(usages: Sequence[Usage], n: int) -> dict[str, Any]:
    """OpenAI's `usage` over all choices; each prompt counts once, whatever its `n` choices."""
    firsts = usages[::n]
    prompt = sum(usage.prompt_tokens for usage in firsts)
    completion = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in firsts)},
    }
