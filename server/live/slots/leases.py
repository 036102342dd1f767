"""Defines leases, which keep a request's adapters in the engine, and tickets, which stand for requests that
wait for their adapters to be loaded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.lora.manifest import Adapter


class Lease:
    """Keeps a request's adapters in the engine until the engine has begun the request and keeps them itself,
    or until the request ends.
    """

    __slots__ = ("_digests", "_give_back", "_uses", "open", "waited")

    def __init__(
        self, digests: Sequence[str], give_back: Callable[[Sequence[str]], None], waited: float = 0.0
    ) -> None:
        self._digests = digests
        self._give_back = give_back
        self._uses = 1
        self.waited = waited
        """Seconds that the request waited for its adapters; 0 if all were resident."""
        self.open = True
        """True while the lease keeps adapters in the engine. A plain attribute, since every request reads it.
        """

    def expect(self, uses: int) -> None:
        """Set how many generations of the request will begin with this lease."""
        self._uses = uses

    def begun(self) -> None:
        """Note that the engine has begun one of the request's generations. After the last one, the lease is
        closed.
        """
        self._uses -= 1
        if self._uses <= 0:
            self.close()

    def close(self) -> None:
        """Stop keeping the adapters in the engine. Idempotent."""
        if self.open:
            self.open = False
            self._give_back(self._digests)


@dataclass(slots=True, eq=False)
class SlotTicket:
    """A request that waits because some of its adapters are not in the engine."""

    adapters: Mapping[str, Adapter]
    """The adapters that the request needs, by digest."""
    keeps: bool
    """True if the adapters must stay in the engine for the request; False if they only have to be loaded."""
    done: asyncio.Future[None]
    own: list[str] = field(default_factory=list[str])
    """Digests of adapters that cannot be evicted while this request's other adapters are loaded."""
    began: float = field(default_factory=time.monotonic)
    blocked: float | None = None
    """Time since which no slot could be freed, because all are in use; None if a slot could be freed."""

    @property
    def granted(self) -> bool:
        """True if all adapters of the request are in the engine."""
        return self.done.done() and not self.done.cancelled() and self.done.exception() is None
