"""What passes between the scheduler and the runner: sequences, and the work of one step.

A row is a place in the KV memory that holds the keys and values of one sequence from position 0 on.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from enum import Enum

from server.request import AdapterMix, GenerationRequest


class SequenceState(Enum):
    """Where a sequence is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """One request on its way through the engine. Only the scheduler changes it."""

    request: GenerationRequest
    arrived: float
    """Seconds of `time.perf_counter()`."""
    tokens: list[int] = field(default_factory=list[int])
    """The prompt, then what was generated."""
    state: SequenceState = SequenceState.WAITING
    row: int = -1
    """Its place in the KV memory while it runs; -1 otherwise."""
    computed: int = 0
    """Tokens whose keys and values are in `row`."""
    cached: int = 0
    """Prompt tokens that the first admission found in the prefix cache."""
    scheduled: float | None = None
    """When the first step that worked on it began."""

    def __post_init__(self) -> None:
        if not self.tokens:
            self.tokens = list(self.request.prompt)

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt)

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def pending(self) -> int:
        """Tokens not yet computed: 1 in steady decoding, more during prefill or after preemption."""
        return len(self.tokens) - self.computed

    @property
    def adapter_mix(self) -> AdapterMix:
        """The adapters it runs with."""
        return self.request.adapter_mix


@dataclass(frozen=True, slots=True)
class RowCopy:
    """Copy the keys and values of positions [0, length) from one row to another, before the step's runs."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Compute positions [start, start + length) of a sequence whose earlier positions are computed."""

    sequence: Sequence
    start: int
    length: int

    @property
    def final(self) -> bool:
        """Whether the logits of its last position choose the next token."""
        return self.start + self.length == len(self.sequence.tokens)


@dataclass(frozen=True, slots=True)
class Step:
    """One step's work, in the order in which it is done: releases, copies, chunks, then one decode run."""

    copies: Seq[RowCopy] = ()
    chunks: Seq[Chunk] = ()
    decodes: Seq[Sequence] = ()
    """Sequences with exactly one pending token, by ascending row."""
    released: Seq[int] = ()
    """Rows whose contents are dropped, their memory given back; the same step may write to some of them."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to compute."""
        return not (self.chunks or self.decodes)
