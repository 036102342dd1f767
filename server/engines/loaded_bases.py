"""How many bases may be in memory at once, and which one makes room for another."""

from __future__ import annotations

import asyncio
from typing import Literal, Protocol

Why = Literal["idle", "room", "died"]
"""For what a base is unloaded."""


class LoadableBase(Protocol):
    """A base that comes and goes."""

    last_used: float

    @property
    def idle(self) -> bool:
        """Whether it could be unloaded now."""
        ...

    @property
    def wanted(self) -> bool:
        """Whether any request waits for it."""
        ...

    def unload_now(self, reason: Why, /) -> asyncio.Task[None]:
        """Begin to unload it."""
        ...


class LoadedBases:
    """Counts the bases in memory, of which `always` never leave. `most` None: as many as there are.

    Used on the event loop alone.
    """

    def __init__(self, most: int | None = None, always: int = 0) -> None:
        self._room = None if most is None else most - always
        self._bases: list[LoadableBase] = []
        self._inside: list[LoadableBase] = []
        self._changed: set[asyncio.Event] = set()

    @property
    def inside(self) -> int:
        """Bases that have room, those that never leave aside."""
        return len(self._inside)

    def add(self, base: LoadableBase) -> None:
        """One more that comes and goes."""
        self._bases.append(base)

    async def take(self, base: LoadableBase) -> bool:
        """Give `base` room, once the idle one that was used the longest ago is gone if there is no other.

        False if nothing waits for it any more while the others are busy.
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
        """`base` is out of memory. Idempotent."""
        if base in self._inside:
            self._inside.remove(base)
        self.look_again()

    def look_again(self) -> None:
        """Something has changed for those that wait for room."""
        for changed in self._changed:
            changed.set()
