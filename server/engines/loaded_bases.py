"""Limits how many bases are in memory, and chooses which base to unload if another one needs the room."""

from __future__ import annotations

import asyncio
from typing import Literal, Protocol

Why = Literal["idle", "room", "died"]
"""Reason for unloading a base: it was idle, another base needs its room, or its engine has died."""


class LoadableBase(Protocol):
    """A base that is loaded into memory when a request needs it."""

    last_used: float

    @property
    def idle(self) -> bool:
        """True if the base is loaded and no request uses it, so that it can be unloaded now."""
        ...

    @property
    def wanted(self) -> bool:
        """True if any request waits until the base is loaded."""
        ...

    def unload_now(self, reason: Why, /) -> asyncio.Task[None]:
        """Begin to unload the base for the given reason, and return the task that does it."""
        ...


class LoadedBases:
    """Counts the bases in memory, and makes room for another one.

    `always` is the number of bases that are never unloaded. `most` is the maximum number of bases in memory;
    None: no limit. Use it on the event loop only.
    """

    def __init__(self, most: int | None = None, always: int = 0) -> None:
        self._room = None if most is None else most - always
        self._bases: list[LoadableBase] = []
        self._inside: list[LoadableBase] = []
        self._changed: set[asyncio.Event] = set()

    @property
    def inside(self) -> int:
        """Number of on-demand bases in memory, including those that are being loaded or unloaded."""
        return len(self._inside)

    def add(self, base: LoadableBase) -> None:
        """Add an on-demand base to the bases whose memory is managed here."""
        self._bases.append(base)

    async def take(self, base: LoadableBase) -> bool:
        """Wait until there is room in memory for `base`. If needed, unload the least recently used idle base.

        Returns False if no base can be unloaded and no request waits for `base` any more.
        """
        changed = asyncio.Event()
        self._changed.add(changed)
        try:
            while True:
                if self._room is None or len(self._inside) < self._room:
                    self._inside.append(base)
                    return True
                idle = [other for other in self._inside if other.idle]
                if idle:
                    await asyncio.wait([min(idle, key=lambda other: other.last_used).unload_now("room")])
                    continue
                if not base.wanted:
                    return False
                changed.clear()
                await changed.wait()
        finally:
            self._changed.discard(changed)

    def give_back(self, base: LoadableBase) -> None:
        """Record that `base` is no longer in memory, so that another base can be loaded. Idempotent."""
        if base in self._inside:
            self._inside.remove(base)
        self.look_again()

    def look_again(self) -> None:
        """Wake every base that waits for room in memory, so that it checks again if there is room."""
        for changed in self._changed:
            changed.set()
