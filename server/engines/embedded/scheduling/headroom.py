"""Checks that a waiting sequence fits into the KV cache, with headroom for all sequences to grow before one
must be preempted.

The headroom doubles with each preemption of a sequence involved, until it covers the whole context length. So
a sequence is preempted at most about log2(context / HEADROOM) times for lack of KV cache.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.engines.embedded.scheduling.fairness import Ticket
from server.engines.embedded.scheduling.rows import KvRows, pages_of
from server.engines.embedded.scheduling.step import Sequence

HEADROOM = 32
"""Headroom in tokens: when a sequence is admitted, the KV cache must let every sequence grow by this much."""


class Headroom:
    """Checks that the KV cache has room for a new sequence and for the growth of all running sequences."""

    def __init__(self, rows: KvRows, context: int) -> None:
        self._rows = rows
        self._context = context

    def fits(self, newcomer: Ticket, running: Iterable[Ticket]) -> bool:
        """Return True if the KV cache has pages for all tokens of the new and the running sequences, and
        headroom for each.
        """
        return self._needs(newcomer, running, _reach(newcomer, running)) <= self._rows.capacity

    def need(self, newcomer: Ticket, running: Iterable[Ticket]) -> int:
        """Return the number of KV cache pages that the new sequence needs, including its headroom."""
        return _reserve(newcomer.sequence, _reach(newcomer, running))

    def room(self, newcomer: Ticket, running: Iterable[Ticket]) -> int:
        """Return how many KV cache pages the new sequence may take over with its slot from the slot's last
        use.

        If every sequence can reach its full length, it may take over all pages that it can ever fill.
        Otherwise it may take over as many pages as `fits` counts for it.
        """
        plenty = self._needs(newcomer, running, self._context) <= self._rows.capacity
        return _reserve(newcomer.sequence, self._context if plenty else _reach(newcomer, running))

    def _needs(self, newcomer: Ticket, running: Iterable[Ticket], reach: int) -> int:
        """Sum the KV cache pages of the new and all running sequences, each grown by up to `reach` tokens."""
        rows, pages = self._rows, _reserve(newcomer.sequence, reach)
        for other in running:
            pages += max(rows[other.sequence.row].pages, _reserve(other.sequence, reach))
        return pages


def _reach(newcomer: Ticket, running: Iterable[Ticket]) -> int:
    """Return the headroom in tokens by which each sequence must be able to grow."""
    return HEADROOM << max(newcomer.preempted, max((ticket.preempted for ticket in running), default=0))


def _reserve(sequence: Sequence, reach: int) -> int:
    """Return the KV cache pages for a sequence's tokens and up to `reach` more tokens."""
    tokens = len(sequence.tokens)
    return pages_of(tokens + min(reach, sequence.request.sampling.max_tokens - sequence.generated))
