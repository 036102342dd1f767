"""Checks that a newcomer fits into memory, with room for all sequences to grow before a preemption.

The room required doubles with each preemption of a sequence involved, until it covers the whole context. So
a sequence is preempted at most about log2(context / HEADROOM) times for lack of memory.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.engines.embedded.scheduling.fairness import Ticket
from server.engines.embedded.scheduling.rows import KvRows, pages_of
from server.engines.embedded.scheduling.step import Sequence

HEADROOM = 32
"""Tokens by which each sequence must be able to grow when a newcomer is admitted."""


class Headroom:
    """Checks a newcomer against the free memory."""

    def __init__(self, rows: KvRows, context: int) -> None:
        self._rows = rows
        self._context = context

    def fits(self, newcomer: Ticket, running: Iterable[Ticket]) -> bool:
        """Return True if there are pages for the tokens of all sequences, and for each to grow a while."""
        return self._needs(newcomer, running, _reach(newcomer, running)) <= self._rows.capacity

    def need(self, newcomer: Ticket, running: Iterable[Ticket]) -> int:
        """Return the pages that the newcomer itself needs, including room to grow."""
        return _reserve(newcomer.sequence, _reach(newcomer, running))

    def room(self, newcomer: Ticket, running: Iterable[Ticket]) -> int:
        """Return the maximum number of pages that the newcomer's row may keep from its last use.

        If every sequence has memory to reach its full length, that is all pages that the newcomer can ever
        fill. Otherwise it is the number of pages that `fits` counts for the newcomer.
        """
        plenty = self._needs(newcomer, running, self._context) <= self._rows.capacity
        return _reserve(newcomer.sequence, self._context if plenty else _reach(newcomer, running))

    def _needs(self, newcomer: Ticket, running: Iterable[Ticket], reach: int) -> int:
        """Sum the pages of the newcomer and all running sequences, each grown by up to `reach` tokens."""
        rows, pages = self._rows, _reserve(newcomer.sequence, reach)
        for other in running:
            pages += max(rows[other.sequence.row].pages, _reserve(other.sequence, reach))
        return pages


def _reach(newcomer: Ticket, running: Iterable[Ticket]) -> int:
    """Return the tokens by which each sequence must have room to grow."""
    return HEADROOM << max(newcomer.preempted, max((ticket.preempted for ticket in running), default=0))


def _reserve(sequence: Sequence, reach: int) -> int:
    """Return the pages for a sequence's tokens and up to `reach` more."""
    tokens = len(sequence.tokens)
    return pages_of(tokens + min(reach, sequence.request.sampling.max_tokens - sequence.generated))
