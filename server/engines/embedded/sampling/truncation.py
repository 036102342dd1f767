"""Truncates each sequence's token distribution by min_p, top_k and top_p, and draws a token from it.

Each of the three rules keeps the tokens whose weight is at least a threshold, so the largest threshold
decides. Tokens of equal weight are therefore kept or dropped together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_HEAD = 256
_BLOCK = 128


@dataclass(frozen=True, slots=True)
class Truncation:
    """The parameters min_p, top_k and top_p of each sequence; arrays of shape [n]."""

    min_p: NDArray[np.float32]
    top_k: NDArray[np.int64]
    """Number of most likely tokens to keep; 0 means no limit."""
    top_p: NDArray[np.float64]

    @property
    def limits(self) -> NDArray[np.bool_]:
        """True for sequences with top_k or top_p, whose weights have to be sorted."""
        return (self.top_k > 0) | (self.top_p < 1.0)


def truncate(weights: NDArray[np.float32], rules: Truncation) -> None:
    """Zero the weights of tokens that min_p, top_k and top_p drop, in place. `weights` is [n, vocabulary],
    and each row's maximum is 1.

    The rules apply in this order. min_p drops weights below `min_p`. top_k keeps the `top_k` largest of the
    remaining weights. top_p keeps as few of the largest weights as sum to at least `top_p` of what top_k kept
    (Holtzman et al. 2019).
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
    """Find the smallest weight that top_k and top_p keep in each of `rows`; shape [len(rows)].

    For nearly every row of a trained model, sorting the `_HEAD` largest weights is enough. The remaining rows
    are sorted as a whole.
    """
    vocabulary = weights.shape[1]
    found = np.zeros(len(rows), np.float32)
    limits = np.where(rules.top_k[rows] > 0, np.minimum(rules.top_k[rows], vocabulary), vocabulary)
    unsettled = np.arange(len(rows))
    for width in (_HEAD, vocabulary) if vocabulary > _HEAD else (vocabulary,):
        chosen = rows[unsettled]
        subset = weights if len(chosen) == len(weights) else weights[chosen]
        threshold, settled = _try_head(subset, width, limits[unsettled], rules.top_p[chosen])
        found[unsettled[settled]] = threshold[settled]
        unsettled = unsettled[~settled]
        if not unsettled.size:
            break
    return found


def _try_head(
    weights: NDArray[np.float32], width: int, limits: NDArray[np.int64], top_p: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Find each row's smallest weight to keep, looking only at its `width` largest weights.

    Returns thresholds [n], and flags [n] that are False if a row needs more weights. top_p drops the smallest
    weights as long as their sum is at most 1 - top_p of the sum of all weights.
    """
    count, vocabulary = weights.shape
    each = np.arange(count)
    whole = width == vocabulary
    head = np.sort(
        weights if whole else np.partition(weights, vocabulary - width, axis=1)[:, -width:], axis=1
    )
    limited = limits < vocabulary
    # Tokens that tie with the k-th largest are kept, and top_p counts their weight too.
    border = np.where(limited, head[each, width - np.minimum(limits, width)], 0.0)
    settled = whole | (limited & (head[:, 0] < border))
    head *= head >= border[:, None]
    sums = _running_sums(head)
    mass = sums[:, -1]
    if not (whole or limited.all()):
        total = _running_sums(weights)[:, -1]
        settled |= ~limited & (mass >= top_p * total)
        mass = np.where(limited, mass, total)
    droppable = np.maximum(sums[:, -1] - top_p * mass, 0.0)
    return head[each, _first_beyond(head, sums, droppable)], settled


def draw(weights: NDArray[np.float32], uniforms: NDArray[np.float64]) -> NDArray[np.intp]:
    """Draw a random token for each row of `weights` [n, vocabulary], which need not sum to 1; shape [n].

    Applies the inverse cumulative distribution, in the order of token ids, to the random numbers `uniforms`
    [n].
    """
    sums = _running_sums(weights)
    return _first_beyond(weights, sums, uniforms * sums[:, -1])


def _running_sums(weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the running sums of each row of `weights` [n, width] at the ends of blocks of `_BLOCK`
    columns.
    """
    starts = np.arange(0, weights.shape[1], _BLOCK)
    return np.cumsum(np.add.reduceat(weights, starts, axis=1), axis=1, dtype=np.float64)


def _first_beyond(
    weights: NDArray[np.float32], sums: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Find each row's first column at which the running sum exceeds `target`.

    The weight in this column is never 0.
    """
    count, width = weights.shape
    each = np.arange(count)
    blocks = np.diff(sums, axis=1, prepend=0.0)
    block = np.minimum((sums <= target[:, None]).sum(axis=1), _last_positive(blocks))
    columns = block[:, None] * _BLOCK + np.arange(_BLOCK)
    inside = np.where(columns < width, weights[each[:, None], np.minimum(columns, width - 1)], 0.0)
    before = np.where(block > 0, sums[each, block - 1], 0.0)
    running = np.cumsum(inside, axis=1, dtype=np.float64) + before[:, None]
    place = np.minimum((running <= target[:, None]).sum(axis=1), _last_positive(inside))
    return block * _BLOCK + place


def _last_positive(values: NDArray[np.floating]) -> NDArray[np.intp]:
    """Find each row's last column with a positive value. Rounding errors must not lead to a later column."""
    return values.shape[1] - 1 - np.argmax(values[:, ::-1] > 0, axis=1)
