"""The rows of vLLM's log probabilities as ours; no tensors."""

from __future__ import annotations

from server.request import TokenLogprob


def read_logprobs(ids: list[list[int]], scores: list[list[float]], most: int) -> list[TokenLogprob]:
    """Rows of (the token itself, then the likeliest ones) as log probabilities with `most` alternatives."""
    return [
        TokenLogprob(row[0], values[0], tuple(zip(row[1 : most + 1], values[1 : most + 1], strict=True)))
        for row, values in zip(ids, scores, strict=True)
    ]
