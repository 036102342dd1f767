"""The tokens of one step, shared out: one for each sequence that decodes, the rest to prompts."""

from __future__ import annotations

from collections.abc import Iterable

from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.engines.embedded.scheduling.step import Chunk, Sequence

LEAST_CHUNK = 16
"""Tokens of a prompt below which a step that has other prompts leaves it to the next."""


class Batch:
    """The work of the step being made. Starts with one token of each that decodes; prompts are added."""

    def __init__(self, limits: SchedulerLimits, running: Iterable[Sequence]) -> None:
        self.decodes: list[Sequence] = []
        self.chunks: list[Chunk] = []
        self.prompts: list[Sequence] = []
        """Those that run and have more to compute, in the order in which they came; not yet in the batch."""
        for sequence in running:
            (self.decodes if _decodes(sequence) else self.prompts).append(sequence)
        self.budget = limits.max_num_batched_tokens - len(self.decodes)
        """Tokens that may still be added."""
        if self.decodes:
            self.budget = min(self.budget, limits.prefill_chunk)

    def __bool__(self) -> bool:
        return bool(self.chunks or self.decodes)

    def worthwhile(self, pending: int) -> bool:
        """Whether a newcomer with so many tokens to compute had better begin now than in the next step."""
        return not self.chunks or self.budget >= min(LEAST_CHUNK, pending)

    def add(self, sequence: Sequence) -> None:
        """Give a newcomer as much of the budget as it can use."""
        if _decodes(sequence):
            self.decodes.append(sequence)
            self.budget -= 1
        else:
            self._prefill(sequence)

    def _prefill(self, sequence: Sequence) -> None:
        pending = len(sequence.tokens) - sequence.computed
        length = min(self.budget, pending)
        if length <= 0 or not self.worthwhile(pending):
            return
        self.chunks.append(Chunk(sequence, sequence.computed, length))
        self.budget -= length


def _decodes(sequence: Sequence) -> bool:
    """Whether its only pending token can be computed in the decode run.

    A prompt's first token cannot, nor the last of a prompt whose logprobs are asked for or that ends there.
    """
    if len(sequence.tokens) - sequence.computed != 1 or not sequence.computed:
        return False
    sampling = sequence.request.sampling
    if len(sequence.tokens) > len(sequence.request.prompt):
        return True
    return sampling.prompt_logprobs is None and sampling.max_tokens > 0
