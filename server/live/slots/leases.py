"""Leases, which keep a request's adapters in the engine, and tickets, which wait for them."""

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
        """True if adapters are held. A plain attribute, since every request reads it."""

    def expect(self, uses: int) -> None:
        """Set how many generations will begin with this lease."""
        self._uses = uses

    def begun(self) -> None:
        """Note that the engine has started one of them."""
        self._uses -= 1
        if self._uses <= 0:
            self.close()

    def close(self) -> None:
        """Let the adapters go. Idempotent."""
        if self.open:
            self.open = False
            self._give_back(self._digests)


@dataclass(slots=True, eq=False)
class SlotTicket:
    """A request's wait for adapters that are not all resident."""

    adapters: Mapping[str, Adapter]
    """The leased adapters by digest."""
    keeps: bool
    """True if the adapters are kept for a lease; False to load them only."""
    done: asyncio.Future[None]
    own: list[str] = field(default_factory=list[str])
    """Digests that are held while the other adapters are loaded."""
    began: float = field(default_factory=time.monotonic)
    blocked: float | None = None
    """Time since which no slot could be freed, because all are in use."""

    @property
    def granted(self) -> bool:
        """True if all adapters of the lease are in the engine."""
        return self.done.done() and not self.done.cancelled() and self.done.exception() is None
