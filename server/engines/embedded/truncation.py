"""Which tokens stay in the draw (min_p, top_k, top_p), and the draw itself; every row apart from the others.

Each of the three rules keeps the tokens at or above some weight, so a row's rules together are one number.
Tokens of equal weight therefore stay or go together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_HEAD = 256
_BLOCK = 128


@dataclass(frozen=True, slots=True)
class Truncation:
    """The rules of each row; arrays of shape [n]."""

    min_p: NDArray[np.float32]
    top_k: NDArray[np.int64]
    """0 where the row has no limit."""
    top_p: NDArray[np.float64]

    @property
    def limits(self) -> NDArray[np.bool_]:
        """Which rows need their weights in order."""
        return (self.top_k > 0) | (self.top_p < 1.0)


def truncate(weights: NDArray[np.float32], rules: Truncation) -> None:
    """Set to zero, in place, the weights [n, vocabulary] that the rules drop; each row's largest is 1.

    In order: min_p drops what weighs less than `min_p`; top_k keeps the `top_k` heaviest of these; top_p
    keeps the fewest heaviest of those whose sum reaches `top_p` of theirs (Holtzman et al. 2019).
    """
    floor = rules.min_p.copy()
    if floor.any():
        weights *= weights >= floor[:, None]
    limited = np.flatnonzero(rules.limits)
    if limited.size:
        floor[limited] = np.maximum(floor[limited], _thresholds(weights, rules, limited))
    if floor.any():
        weights *= weights >= floor[:, None]


def _thresholds(
    weights: NDArray[np.float32], rules: Truncation, rows: NDArray[np.intp]
) -> NDArray[np.float32]:
    """The least weight that top_k and top_p keep in each of `rows`; shape [len(rows)].

    Only the heaviest weights are put in order: a few hundred settle nearly every row of a language model.
    Rows that they do not settle are tried again with more.
    """
    vocabulary = weights.shape[1]
    found = np.zeros(len(rows), np.float32)
    limit = np.where(rules.top_k[rows] > 0, np.minimum(rules.top_k[rows], vocabulary), vocabulary)
    open_places = np.arange(len(rows))
    width = _HEAD
    while open_places.size:
        width = min(width, vocabulary)
        chosen = rows[open_places]
        subset = weights if len(chosen) == len(weights) else weights[chosen]
        threshold, settled = _try_head(subset, width, limit[open_places], rules.top_p[chosen])
        found[open_places[settled]] = threshold[settled]
        open_places = open_places[~settled]
        width *= 16
    return found


def _try_head(
    weights: NDArray[np.float32], width: int, limit: NDArray[np.int64], top_p: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Thresholds from the `width` heaviest weights of each row, and whether these were enough; both [n]."""
    count, vocabulary = weights.shape
    head = weights if width == vocabulary else np.partition(weights, vocabulary - width, axis=1)[:, -width:]
    head = np.sort(head, axis=1)[:, ::-1]
    each = np.arange(count)
    sums = np.cumsum(head.astype(np.float64), axis=1)
    reach = np.minimum(limit, width)
    # Ties with the k-th stay in, and so does their share of what top_p measures.
    border = head[each, reach - 1]
    kept = (head >= border[:, None]).sum(axis=1)
    everything = weights.sum(axis=1).astype(np.float64) if (limit >= vocabulary).any() else sums[:, -1]
    mass = np.where(limit < vocabulary, sums[each, kept - 1], everything)
    needed = (sums < (top_p * mass)[:, None]).sum(axis=1)
    nucleus = head[each, np.minimum(needed, width - 1)]
    least = np.where(limit < vocabulary, border, 0.0)
    threshold = np.where(top_p < 1.0, np.maximum(nucleus, least), least)
    complete = width == vocabulary
    settled = complete | ((limit < width) & (kept < width)) | ((limit >= vocabulary) & (needed < width))
    return threshold, settled


def draw(weights: NDArray[np.float32], uniforms: NDArray[np.float64]) -> NDArray[np.intp]:
    """One token for each row of `weights` [n, vocabulary] (not normalised) by its uniform number; shape [n].

    Inverts the cumulative distribution in the order of token ids: blocks first, then within the block.
    """
    count, vocabulary = weights.shape
    starts = np.arange(0, vocabulary, _BLOCK)
    ends = np.cumsum(np.add.reduceat(weights, starts, axis=1), axis=1, dtype=np.float64)
    target = uniforms * ends[:, -1]
    block = np.minimum(
        (ends <= target[:, None]).sum(axis=1), _last_positive(np.diff(ends, axis=1, prepend=0.0))
    )
    each = np.arange(count)
    before = np.where(block > 0, ends[each, block - 1], 0.0)
    columns = starts[block][:, None] + np.arange(_BLOCK)
    inside = np.where(columns < vocabulary, weights[each[:, None], np.minimum(columns, vocabulary - 1)], 0.0)
    sums = np.cumsum(inside, axis=1, dtype=np.float64) + before[:, None]
    place = np.minimum((sums <= target[:, None]).sum(axis=1), _last_positive(inside))
    return starts[block] + place


def _last_positive(values: NDArray[np.floating]) -> NDArray[np.intp]:
    """The last column of each row above zero: where rounding would step past the end."""
    return values.shape[1] - 1 - np.argmax(values[:, ::-1] > 0, axis=1)
