"""Divides the tokens of one engine step: one for each decoding sequence, the rest for prompts."""

from __future__ import annotations

from collections.abc import Iterable

from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.engines.embedded.scheduling.step import Chunk, Sequence

LEAST_CHUNK = 16
"""Smallest prefill chunk in tokens, except for the end of a prompt. If other prompts leave less room in a
step, the prompt waits for the next step.
"""


class Batch:
    """The engine step that is being planned.

    It starts with one token for each decoding sequence; prompts are added.
    """

    def __init__(self, limits: SchedulerLimits, running: Iterable[Sequence]) -> None:
        self.decodes: list[Sequence] = []
        self.chunks: list[Chunk] = []
        self.prompts: list[Sequence] = []
        """Running sequences whose prompts are not yet in the batch, in order of arrival."""
        for sequence in running:
            (self.decodes if _decodes(sequence) else self.prompts).append(sequence)
        self.budget = limits.max_num_batched_tokens - len(self.decodes)
        """Number of tokens that may still be added."""
        if self.decodes:
            self.budget = min(self.budget, limits.prefill_chunk)

    def __bool__(self) -> bool:
        return bool(self.chunks or self.decodes)

    def worthwhile(self, pending: int) -> bool:
        """Return True if a waiting sequence with `pending` tokens to compute should start in this step and
        not in the next.
        """
        return not self.chunks or self.budget >= min(LEAST_CHUNK, pending)

    def add(self, sequence: Sequence) -> None:
        """Add a sequence to the step, with as many of its pending tokens as the step has room for."""
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
    """Return True if the sequence has exactly one pending token and this token can be computed in the decode
    run.

    The first token of a prompt is computed in a prefill run. So is a prompt's last token, if the request
    wants log probabilities of the prompt or generates no tokens.
    """
    if len(sequence.tokens) - sequence.computed != 1 or not sequence.computed:
        return False
    sampling = sequence.request.sampling
    if len(sequence.tokens) > len(sequence.request.prompt):
        return True
    return sampling.prompt_logprobs is None and sampling.max_tokens > 0
