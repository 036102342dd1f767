"""Computes log probabilities of tokens, and of the most likely alternatives, from the model's unmodified
logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.request import TokenLogprob

_ROWS_AT_ONCE = 64


def score_tokens(
    logits: NDArray[np.float32], tokens: Sequence[int], tops: Sequence[int]
) -> list[TokenLogprob]:
    """Return the log probability of each `tokens[i]` in row i of `logits` [n, vocabulary], with its `tops[i]`
    most likely alternatives.

    Alternatives with equal logits are sorted by token id. Logits must be finite or -inf.
    """
    scored: list[TokenLogprob] = []
    for start in range(0, len(logits), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        scored += _score_block(logits[rows], tokens[rows], tops[rows])
    return scored


def _score_block(
    logits: NDArray[np.float32], tokens: Sequence[int], tops: Sequence[int]
) -> list[TokenLogprob]:
    peak = logits.max(axis=1)
    total = peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1))
    picked = logits[np.arange(len(tokens)), tokens]
    chosen = (picked - total).tolist()
    ranks = (1 + np.count_nonzero(logits > picked[:, None], axis=1)).tolist()
    widest = min(max(tops, default=0), logits.shape[1])
    alternatives = _alternatives(logits, total, widest) if widest else [()] * len(tokens)
    return [
        TokenLogprob(int(token), logprob, others[:top], rank)
        for token, logprob, others, top, rank in zip(tokens, chosen, alternatives, tops, ranks, strict=True)
    ]


def _alternatives(
    logits: NDArray[np.float32], total: NDArray[np.float32], count: int
) -> list[tuple[tuple[int, float], ...]]:
    """Return the `count` most likely tokens of each row as (token id, log probability), best first."""
    border = np.partition(logits, logits.shape[1] - count, axis=1)[:, -count]
    places = np.flatnonzero(logits >= border[:, None])
    rows, ids = np.divmod(places, logits.shape[1])
    values = logits[rows, ids]
    order = np.lexsort((ids, -values, rows))
    firsts = np.searchsorted(rows, np.arange(len(logits)))
    # Tokens that tie with the last one are included too; keep the first `count` of each row in order.
    picked = order[firsts[:, None] + np.arange(count)]
    best = ids[picked].tolist()
    scores = (values[picked] - total[:, None]).tolist()
    return [tuple(zip(row, score, strict=True)) for row, score in zip(best, scores, strict=True)]
