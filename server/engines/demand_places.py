"""Manages the queue of a base that is loaded on demand. The base stays in memory as long as any request has a
place in this queue.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from server.engines.base import Engine
from server.errors import BaseNotLoadedError
from server.exchange import Held
from server.request import Share

BUSY_RETRY = 5.0
"""Value of the header `Retry-After`, in seconds, for requests that arrive while their base is being
loaded.
"""


class PlacesOwner(Protocol):
    """The on-demand base that a `DemandPlaces` queue belongs to: its engine, its limits, and its
    reservations.
    """

    name: str

    @property
    def engine(self) -> Engine | None:
        """The base's engine; None while the base is not loaded."""
        ...

    @property
    def most_waiting(self) -> int:
        """Maximum number of requests that may wait until the base is loaded."""
        ...

    def reserve(self, engine: Engine, share: Share, count: int, /) -> Held:
        """Reserve `count` places in the queue of `engine` for one API key and adapter (`share`), so that the
        base stays in memory until they are given back.
        """
        ...

    def reserve_all(self, engine: Engine, counts: Mapping[Share, int], /) -> Mapping[Share, Held]:
        """Reserve places in the queue of `engine` for several API keys or adapters, all of them or none.
        `counts` maps each pair of API key and adapter to its number of places.
        """
        ...

    def released(self) -> None:
        """Record that a request has given back its places, so that the base may be idle now."""
        ...


class DemandPlaces:
    """The queue of a base that is loaded on demand. While any request holds a place in the queue, the base
    stays in memory.
    """

    def __init__(self, owner: PlacesOwner) -> None:
        self._owner = owner

    @property
    def full(self) -> bool:
        """True if the engine's queue is full. Then a request still gets a place if its API key and adapter
        have less than their fair part of the queue: a waiting request of others is refused for it. See
        `QueuePlaces.full`.
        """
        engine = self._owner.engine
        return engine is not None and engine.places.full

    @property
    def limit(self) -> int:
        """Maximum number of requests in the engine's queue and batch or, while the base is not loaded, that
        may wait for the base. See `QueuePlaces.limit`.
        """
        engine = self._owner.engine
        return engine.places.limit if engine is not None else self._owner.most_waiting

    @property
    def free(self) -> int:
        """Number of further requests that the engine's queue can take now, whatever their API key and
        adapter. See `QueuePlaces.free`.
        """
        engine = self._owner.engine
        return engine.places.free if engine is not None else self._owner.most_waiting

    def check(self, share: Share, count: int = 1) -> None:
        """Raise `EngineBusyError` if the engine's queue has no room for `count` requests. Does nothing while
        the base is not loaded. See `QueuePlaces.check`.
        """
        engine = self._owner.engine
        if engine is not None:
            engine.places.check(share, count)

    def reserve(self, share: Share, count: int = 1) -> Held:
        """Reserve `count` places in the engine's queue, all of them or none. Raises `BaseNotLoadedError` if
        the base is not loaded. See `QueuePlaces.reserve`.
        """
        engine = self._owner.engine
        if engine is None:
            raise BaseNotLoadedError(self._owner.name, BUSY_RETRY)
        return self._owner.reserve(engine, share, count)

    def check_all(self, counts: Mapping[Share, int]) -> None:
        """Raise `EngineBusyError` if the queue has no room for all the requests in `counts`. Does nothing
        while the base is not loaded. See `QueuePlaces.check_all`.
        """
        engine = self._owner.engine
        if engine is not None:
            engine.places.check_all(counts)

    def reserve_all(self, counts: Mapping[Share, int]) -> Mapping[Share, Held]:
        """Reserve places in the engine's queue for all the requests in `counts`, or for none. Raises
        `BaseNotLoadedError` if the base is not loaded. See `QueuePlaces.reserve_all`.
        """
        engine = self._owner.engine
        if engine is None:
            raise BaseNotLoadedError(self._owner.name, BUSY_RETRY)
        return self._owner.reserve_all(engine, counts)


class CountedPlaces:
    """The places that one request has reserved in an engine's queue. The base stays in memory until they are
    given back.
    """

    def __init__(self, held: Held, owner: PlacesOwner) -> None:
        self._held = held
        self._owner = owner

    @property
    def name(self) -> str:
        """Name of the reservation in the engine's queue. See `Held.name`."""
        return self._held.name

    @property
    def open(self) -> bool:
        """True if the request still holds places in the queue. See `Held.open`."""
        return self._held.open

    def begin(self) -> None:
        """Count the reserved places as running requests instead of waiting ones. See `Held.begin`."""
        self._held.begin()

    def close(self) -> None:
        """Give back the reserved places in the queue. See `Held.close`."""
        self._held.close()
        self._owner.released()


@dataclass(frozen=True, slots=True)
class KnownAdapters:
    """The adapters that will be loaded together with an on-demand base, which is not in memory now."""

    open: frozenset[str]

    @property
    def held(self) -> Collection[str]:
        """Digests of the adapters that will take a slot of the engine once the base is loaded. See
        `OpenAdapters.held`.
        """
        return self.open

    def in_use(self, digest: str) -> bool:
        """Return False: no request uses an adapter while the base is not loaded. See
        `OpenAdapters.in_use`.
        """
        return False
