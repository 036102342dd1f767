"""Whether there is memory for one more, with room for all to grow before any must be preempted.

The room asked for doubles with each preemption of a sequence that runs or would, until no growth can outrun
the memory. So a sequence is preempted at most about log2(context / HEADROOM) times, whatever else is asked.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.engines.embedded.scheduling.fairness import Ticket
from server.engines.embedded.scheduling.rows import KvRows, pages_of
from server.engines.embedded.scheduling.step import Sequence

HEADROOM = 32
"""Tokens that each sequence must have room to grow by when one is admitted, before any preemption."""


class Headroom:
    """Weighs a newcomer against the memory."""

    def __init__(self, rows: KvRows, context: int) -> None:
        self._rows = rows
        self._context = context

    def fits(self, newcomer: Ticket, running: Iterable[Ticket]) -> bool:
        """Whether all of `running` and the newcomer have pages for their tokens and to grow for a while."""
        return self._needs(newcomer, running, _reach(newcomer, running)) <= self._rows.capacity

    def need(self, newcomer: Ticket, running: Iterable[Ticket]) -> int:
        """Pages that are counted for the newcomer alone."""
        return _reserve(newcomer.sequence, _reach(newcomer, running))

    def room(self, newcomer: Ticket, running: Iterable[Ticket]) -> int:
        """Pages that the newcomer's row may keep from earlier use.

        As many as it can ever fill where there is memory for all to do so; what `fits` counted otherwise.
        """
        plenty = self._needs(newcomer, running, self._context) <= self._rows.capacity
        return _reserve(newcomer.sequence, self._context if plenty else _reach(newcomer, running))

    def _needs(self, newcomer: Ticket, running: Iterable[Ticket], reach: int) -> int:
        """Pages for the newcomer and all that run, each grown by up to `reach` tokens."""
        rows, pages = self._rows, _reserve(newcomer.sequence, reach)
        for other in running:
            pages += max(rows[other.sequence.row].pages, _reserve(other.sequence, reach))
        return pages


def _reach(newcomer: Ticket, running: Iterable[Ticket]) -> int:
    """Tokens by which each must have room to grow."""
    return HEADROOM << max(newcomer.preempted, max((ticket.preempted for ticket in running), default=0))


def _reserve(sequence: Sequence, reach: int) -> int:
    """Pages for a sequence's tokens and up to `reach` more."""
    tokens = len(sequence.tokens)
    return pages_of(tokens + min(reach, sequence.request.sampling.max_tokens - sequence.generated))
