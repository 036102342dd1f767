"""The rows of vLLM's log probabilities as ours; no tensors."""

from __future__ import annotations

from server.request import TokenLogprob


def read_logprobs(
    ids: list[list[int]], scores: list[list[float]], ranks: list[int], most: int
) -> list[TokenLogprob]:
    """Rows of (the token itself, then the likeliest ones) as log probabilities with `most` alternatives.

    `ranks` are those of the tokens themselves.
    """
    likeliest = slice(1, most + 1)
    return [
        TokenLogprob(row[0], values[0], tuple(zip(row[likeliest], values[likeliest], strict=True)), rank)
        for row, values, rank in zip(ids, scores, ranks, strict=True)
    ]
