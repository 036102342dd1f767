"""What the scheduler may use: sequences, tokens a step, rows and KV memory."""

from __future__ import annotations

from dataclasses import dataclass

PAGE = 16
"""Tokens in which KV memory is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLimits:
    """Bounds of the scheduler. Raises `ValueError`, naming field and value, where they contradict."""

    max_num_seqs: int
    """Most sequences that run at once."""
    max_num_batched_tokens: int
    """Most tokens computed in a step: one for each decoding sequence, the rest for prompts."""
    rows: int
    """Rows of the KV memory; those beyond `max_num_seqs` hold prefixes for reuse."""
    context: int
    """Tokens that a row holds, and most of prompt and answer together."""
    kv_tokens: int
    """Tokens whose keys and values may be held over all rows, counted in whole pages of 16."""
    prefill_chunk: int
    """Most prompt tokens computed in a step while a sequence decodes; what bounds a stream's stall."""
    prefix_caching: bool = True
    """Whether finished sequences stay for reuse, and running ones are reused."""

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
