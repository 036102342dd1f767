"""Data exchanged between the scheduler and the engine's loop: sequences, and the work of one step.

A row is a KV cache slot: it holds the keys and values of one sequence, from position 0 on.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from enum import Enum

from server.request import AdapterMix, GenerationRequest


class SequenceState(Enum):
    """State of a sequence in the scheduler: waiting, running or finished."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """A generation request in the engine, with its tokens and KV cache slot.

    Only the scheduler changes it.
    """

    request: GenerationRequest
    arrived: float
    """Time at which the request arrived, in seconds of `time.perf_counter()`."""
    tokens: list[int] = field(default_factory=list[int])
    """Prompt tokens, followed by generated tokens."""
    state: SequenceState = SequenceState.WAITING
    row: int = -1
    """The sequence's KV cache slot while it runs; -1 otherwise."""
    computed: int = 0
    """Number of the sequence's tokens whose keys and values are in its KV cache slot."""
    cached: int = 0
    """Number of prompt tokens that were found in the prefix cache when the sequence was first admitted."""
    scheduled: float | None = None
    """Time at which the sequence was first admitted to a step, in seconds of `time.perf_counter()`; None
    before.
    """

    def __post_init__(self) -> None:
        if not self.tokens:
            self.tokens = list(self.request.prompt)

    @property
    def prompt_length(self) -> int:
        """Number of tokens in the prompt."""
        return len(self.request.prompt)

    @property
    def generated(self) -> int:
        """Number of tokens generated so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def pending(self) -> int:
        """Number of tokens not yet computed: 1 while decoding, more during prefill or after a preemption."""
        return len(self.tokens) - self.computed

    @property
    def adapter_mix(self) -> AdapterMix:
        """Digests of the request's adapters with their weights; empty for the base model."""
        return self.request.adapter_mix


@dataclass(frozen=True, slots=True)
class RowCopy:
    """A copy of the keys and values of positions [0, length) from one KV cache slot to another, made before
    the step's runs.
    """

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Prefill of positions [start, start + length) of a sequence. Earlier positions are computed already."""

    sequence: Sequence
    start: int
    length: int

    @property
    def final(self) -> bool:
        """True if this is the last chunk of the pending tokens.

        The logits of its last token choose the next token.
        """
        return self.start + self.length == len(self.sequence.tokens)


@dataclass(frozen=True, slots=True)
class Step:
    """The work of one engine step, in this order: release slots, copy slots, prefill chunks, then one decode
    run.
    """

    copies: Seq[RowCopy] = ()
    chunks: Seq[Chunk] = ()
    decodes: Seq[Sequence] = ()
    """Sequences with exactly one pending token, sorted by KV cache slot."""
    released: Seq[int] = ()
    """KV cache slots to empty before the step's other work, which frees their memory. The same step may write
    to them again.
    """
    faults: Seq[tuple[Sequence, Exception]] = ()
    """Sequences that could not be admitted because of an error, each with the error."""

    @property
    def empty(self) -> bool:
        """True if the step has nothing to compute and no failed sequences to report."""
        return not (self.chunks or self.decodes or self.faults)
