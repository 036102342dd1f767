"""Limits of the scheduler: sequences, tokens per step, rows and KV memory."""

from __future__ import annotations

from dataclasses import dataclass

PAGE = 16
"""Size in tokens of a page, the unit of KV memory."""


def in_pages(tokens: int) -> int:
    """Round `tokens` up to whole pages, which is the KV memory that they take in a row."""
    return -(-tokens // PAGE) * PAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLimits:
    """Limits of the scheduler. Raises `ValueError` for contradictory limits, with field and value."""

    max_num_seqs: int
    """Maximum number of running sequences."""
    max_num_batched_tokens: int
    """Maximum tokens in a step: one for each decoding sequence, the rest for prompts."""
    rows: int
    """Rows of the KV memory; those beyond `max_num_seqs` hold prefixes for reuse."""
    context: int
    """Capacity of a row in tokens, and maximum of prompt and answer together."""
    kv_tokens: int
    """Capacity of the KV cache over all rows in tokens, counted in whole pages of 16."""
    prefill_chunk: int
    """Maximum prompt tokens in a step while sequences decode, which limits pauses of their streams."""
    prefix_caching: bool = True
    """True if prefixes of finished and running sequences are reused."""

    @property
    def kv_capacity(self) -> int:
        """`kv_tokens` rounded down to whole pages: no request longer than this can ever be scheduled."""
        return self.kv_tokens // PAGE * PAGE

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_num_batched_tokens", "rows", "context", "prefill_chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.kv_tokens < PAGE:
            raise ValueError(f"kv_tokens is {self.kv_tokens}; it must be at least one page of {PAGE}")
        if self.rows < self.max_num_seqs:
            raise ValueError(f"rows is {self.rows}; it must be at least max_num_seqs, {self.max_num_seqs}")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}; "
                f"it must be at least max_num_seqs, {self.max_num_seqs}"
            )
