"""Converts vLLM's log probabilities, which come as lists for each token, to `TokenLogprob`."""

from __future__ import annotations

from server.request import TokenLogprob


def read_logprobs(
    ids: list[list[int]], scores: list[list[float]], ranks: list[int], most: int
) -> list[TokenLogprob]:
    """Convert the log probabilities of several tokens, each with at most `most` alternatives.

    Each list in `ids` and `scores` begins with the sampled token or prompt token; the likeliest tokens
    follow. `ranks` holds the rank of each first token.
    """
    likeliest = slice(1, most + 1)
    return [
        TokenLogprob(row[0], values[0], tuple(zip(row[likeliest], values[likeliest], strict=True)), rank)
        for row, values, rank in zip(ids, scores, ranks, strict=True)
    ]
