"""The places of an engine that may not be there, and what holding them keeps in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from server.engines.base import Engine
from server.errors import BaseNotLoadedError
from server.exchange import Held
from server.request import Share

BUSY_RETRY = 5.0
"""Seconds after which to ask again for a base that is being loaded."""


class PlacesOwner(Protocol):
    """The base whose places they are."""

    name: str

    @property
    def engine(self) -> Engine | None:
        """The engine, while it is loaded."""
        ...

    @property
    def most_waiting(self) -> int:
        """Requests that may wait for it at once."""
        ...

    def reserve(self, engine: Engine, share: Share, count: int, /) -> Held:
        """Places that keep the base in memory."""
        ...

    def reserve_all(self, engine: Engine, counts: Mapping[Share, int], /) -> Mapping[Share, Held]:
        """The same for several shares, all or none."""
        ...

    def released(self) -> None:
        """Something has stopped using the base."""
        ...


class DemandPlaces:
    """The places of an engine that may not be there."""

    def __init__(self, owner: PlacesOwner) -> None:
        self._owner = owner

    @property
    def full(self) -> bool:
        """See `QueuePlaces.full`."""
        engine = self._owner.engine
        return engine is not None and engine.places.full

    @property
    def limit(self) -> int:
        """See `QueuePlaces.limit`. While it is not loaded: requests that may wait for it."""
        engine = self._owner.engine
        return engine.places.limit if engine is not None else self._owner.most_waiting

    @property
    def free(self) -> int:
        """See `QueuePlaces.free`."""
        engine = self._owner.engine
        return engine.places.free if engine is not None else self._owner.most_waiting

    def check(self, share: Share, count: int = 1) -> None:
        """See `QueuePlaces.check`."""
        engine = self._owner.engine
        if engine is not None:
            engine.places.check(share, count)

    def reserve(self, share: Share, count: int = 1) -> Held:
        """See `QueuePlaces.reserve`. Raises `BaseNotLoadedError` too."""
        engine = self._owner.engine
        if engine is None:
            raise BaseNotLoadedError(self._owner.name, BUSY_RETRY)
        return self._owner.reserve(engine, share, count)

    def check_all(self, counts: Mapping[Share, int]) -> None:
        """See `QueuePlaces.check_all`."""
        engine = self._owner.engine
        if engine is not None:
            engine.places.check_all(counts)

    def reserve_all(self, counts: Mapping[Share, int]) -> Mapping[Share, Held]:
        """See `QueuePlaces.reserve_all`. Raises `BaseNotLoadedError` too."""
        engine = self._owner.engine
        if engine is None:
            raise BaseNotLoadedError(self._owner.name, BUSY_RETRY)
        return self._owner.reserve_all(engine, counts)


class CountedPlaces:
    """Places that keep a base in memory."""

    def __init__(self, held: Held, owner: PlacesOwner) -> None:
        self._held = held
        self._owner = owner

    @property
    def name(self) -> str:
        """See `Held.name`."""
        return self._held.name

    @property
    def open(self) -> bool:
        """See `Held.open`."""
        return self._held.open

    def begin(self) -> None:
        """See `Held.begin`."""
        self._held.begin()

    def close(self) -> None:
        """See `Held.close`."""
        self._held.close()
        self._owner.released()


@dataclass(frozen=True, slots=True)
class KnownAdapters:
    """What will be resident once its base is loaded."""

    open: frozenset[str]

    @property
    def held(self) -> Collection[str]:
        """See `OpenAdapters.held`."""
        return self.open

    def in_use(self, digest: str) -> bool:
        """See `OpenAdapters.in_use`."""
        return False
