"""What keeps the adapters of a request in the engine, and what it waits with until they are there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.lora.manifest import Adapter


class Lease:
    """Keeps adapters in the engine until the engine itself counts their use, or the request ends."""

    __slots__ = ("_digests", "_give_back", "_uses", "open", "waited")

    def __init__(
        self, digests: Sequence[str], give_back: Callable[[Sequence[str]], None], waited: float = 0.0
    ) -> None:
        self._digests = digests
        self._give_back = give_back
        self._uses = 1
        self.waited = waited
        """Seconds until all were there; 0 if they were."""
        self.open = True
        """Whether it holds anything. No call: it is looked at for every request."""

    def expect(self, uses: int) -> None:
        """So many generations will begin under it."""
        self._uses = uses

    def begun(self) -> None:
        """One of them is in the engine."""
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
    """One wait for adapters that are not all in the engine."""

    adapters: Mapping[str, Adapter]
    """By digest."""
    keeps: bool
    """Whether it gets a lease, and not just a look."""
    done: asyncio.Future[None]
    own: list[str] = field(default_factory=list[str])
    """Digests that are held for it while the others are loaded."""
    began: float = field(default_factory=time.monotonic)
    blocked: float | None = None
    """Since when every slot that could make way has been in use."""

    @property
    def granted(self) -> bool:
        """Whether it has what it waited for."""
        return self.done.done() and not self.done.cancelled() and self.done.exception() is None
