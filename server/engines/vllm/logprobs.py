"""Converts rows of vLLM's log probabilities, given as lists, to `TokenLogprob`."""

from __future__ import annotations

from server.request import TokenLogprob


def read_logprobs(
    ids: list[list[int]], scores: list[list[float]], ranks: list[int], most: int
) -> list[TokenLogprob]:
    """Convert rows of log probabilities, each with at most `most` alternatives.

    In each row, the sampled or prompt token comes first, then the likeliest tokens. `ranks` holds the ranks
    of the first tokens.
    """
    likeliest = slice(1, most + 1)
    return [
        TokenLogprob(row[0], values[0], tuple(zip(row[likeliest], values[likeliest], strict=True)), rank)
        for row, values, rank in zip(ids, scores, ranks, strict=True)
    ]
