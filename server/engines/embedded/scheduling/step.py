"""Data exchanged between the scheduler and the engine's loop: sequences, and the work of one step.

A row is a part of the KV memory that holds the keys and values of one sequence, from position 0 on.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from enum import Enum

from server.request import AdapterMix, GenerationRequest


class SequenceState(Enum):
    """State of a sequence in the scheduler."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """A request in the engine. Only the scheduler changes it."""

    request: GenerationRequest
    arrived: float
    """Time of arrival, in seconds of `time.perf_counter()`."""
    tokens: list[int] = field(default_factory=list[int])
    """Prompt tokens, followed by generated tokens."""
    state: SequenceState = SequenceState.WAITING
    row: int = -1
    """The sequence's row in the KV memory while it runs; -1 otherwise."""
    computed: int = 0
    """Number of tokens whose keys and values are in `row`."""
    cached: int = 0
    """Prompt tokens that the first admission found in the prefix cache."""
    scheduled: float | None = None
    """When the sequence's first step began, in seconds of `time.perf_counter()`; None before."""

    def __post_init__(self) -> None:
        if not self.tokens:
            self.tokens = list(self.request.prompt)

    @property
    def prompt_length(self) -> int:
        """Number of tokens of the prompt."""
        return len(self.request.prompt)

    @property
    def generated(self) -> int:
        """Number of tokens generated so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def pending(self) -> int:
        """Number of tokens not yet computed: 1 while decoding, more in prefill or after preemption."""
        return len(self.tokens) - self.computed

    @property
    def adapter_mix(self) -> AdapterMix:
        """The request's adapters and their weights."""
        return self.request.adapter_mix


@dataclass(frozen=True, slots=True)
class RowCopy:
    """A copy of keys and values of positions [0, length) between rows, made before the step's runs."""

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
        """True if this is the prompt's last chunk, whose last logits choose the next token."""
        return self.start + self.length == len(self.sequence.tokens)


@dataclass(frozen=True, slots=True)
class Step:
    """The work of one step, done in this order: releases, copies, chunks, then one decode run."""

    copies: Seq[RowCopy] = ()
    chunks: Seq[Chunk] = ()
    decodes: Seq[Sequence] = ()
    """Sequences with exactly one pending token, by ascending row."""
    released: Seq[int] = ()
    """Rows to empty, freeing their memory. The same step may then write to some of them."""
    faults: Seq[tuple[Sequence, Exception]] = ()
    """Sequences that failed at admission, each with its error."""

    @property
    def empty(self) -> bool:
        """True if there is nothing to compute and no failed sequence to report."""
        return not (self.chunks or self.decodes or self.faults)
