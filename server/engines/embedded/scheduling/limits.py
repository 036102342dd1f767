"""Limits of the scheduler: number of sequences, tokens per step, and size of the KV cache."""

from __future__ import annotations

from dataclasses import dataclass

PAGE = 16
"""Number of tokens in a KV cache page, the unit in which the scheduler counts KV cache memory."""


def in_pages(tokens: int) -> int:
    """Round `tokens` up to whole KV cache pages. The result is in tokens."""
    return -(-tokens // PAGE) * PAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLimits:
    """Limits of the scheduler.

    Raises `ValueError` if they contradict each other; the message names the field and its value.
    """

    max_num_seqs: int
    """Maximum number of sequences that run at the same time."""
    max_num_batched_tokens: int
    """Maximum number of tokens that an engine step computes: one for each decoding sequence, the rest for
    prompts.
    """
    rows: int
    """Number of KV cache slots. Each holds one sequence; those beyond `max_num_seqs` hold cached prefixes."""
    context: int
    """Context length: the maximum number of tokens of a prompt and its answer together."""
    kv_tokens: int
    """Capacity of the KV cache in tokens, over all sequences. It is used in whole pages of 16 tokens."""
    prefill_chunk: int
    """Maximum number of prompt tokens in a step in which sequences decode. It limits how long prompts delay
    the next tokens of their streams.
    """
    prefix_caching: bool = True
    """True if the KV cache of running and finished sequences is reused for prompts with the same prefix."""

    @property
    def kv_capacity(self) -> int:
        """Capacity of the KV cache in tokens: `kv_tokens` rounded down to whole pages.

        A longer request can never be scheduled.
        """
        return self.kv_tokens // PAGE * PAGE

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_num_batched_tokens", "rows", "context", "prefill_chunk"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"the scheduler's limit {name} is {getattr(self, name)}, but must be at least 1"
                )
        if self.kv_tokens < PAGE:
            raise ValueError(
                f"kv_tokens is {self.kv_tokens}, but must be at least {PAGE}, one page of the KV cache"
            )
        if self.rows < self.max_num_seqs:
            raise ValueError(
                f"the number of KV cache rows (one per sequence) is {self.rows}; it must be at least "
                f"max_num_seqs, {self.max_num_seqs}"
            )
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}, "
                f"but must be at least max_num_seqs, {self.max_num_seqs}"
            )
