"""Manages the queue of a base that is loaded on demand. As long as a request is in it, the base stays
loaded.
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
"""`Retry-After` in seconds while a base is being loaded."""


class PlacesOwner(Protocol):
    """What the queue needs to know about its on-demand base."""

    name: str

    @property
    def engine(self) -> Engine | None:
        """The base's engine; None while the base is not loaded."""
        ...

    @property
    def most_waiting(self) -> int:
        """Maximum number of requests that wait for the base."""
        ...

    def reserve(self, engine: Engine, share: Share, count: int, /) -> Held:
        """Hold `count` places for `share` in the engine's queue, so that the base stays in memory."""
        ...

    def reserve_all(self, engine: Engine, counts: Mapping[Share, int], /) -> Mapping[Share, Held]:
        """Hold places in the engine's queue for several shares: all of them or none."""
        ...

    def released(self) -> None:
        """Record that a request no longer uses the base."""
        ...


class DemandPlaces:
    """The queue of an on-demand base. While any request holds a place in it, the base stays in memory."""

    def __init__(self, owner: PlacesOwner) -> None:
        self._owner = owner

    @property
    def full(self) -> bool:
        """True if the queue is full, so that only clients with few requests in it get another place. See
        `QueuePlaces.full`.
        """
        engine = self._owner.engine
        return engine is not None and engine.places.full

    @property
    def limit(self) -> int:
        """Maximum number of requests in the engine's queue and batch. While the base is not loaded: maximum
        number of requests that wait for it. See `QueuePlaces.limit`.
        """
        engine = self._owner.engine
        return engine.places.limit if engine is not None else self._owner.most_waiting

    @property
    def free(self) -> int:
        """Number of further requests that the queue can hold now, whatever their key and adapter. See
        `QueuePlaces.free`.
        """
        engine = self._owner.engine
        return engine.places.free if engine is not None else self._owner.most_waiting

    def check(self, share: Share, count: int = 1) -> None:
        """Raise `EngineBusyError` if the queue has no place for the request. See `QueuePlaces.check`."""
        engine = self._owner.engine
        if engine is not None:
            engine.places.check(share, count)

    def reserve(self, share: Share, count: int = 1) -> Held:
        """Reserve places in the queue for a request: all of them or none. See `QueuePlaces.reserve`. Raises
        `BaseNotLoadedError` too.
        """
        engine = self._owner.engine
        if engine is None:
            raise BaseNotLoadedError(self._owner.name, BUSY_RETRY)
        return self._owner.reserve(engine, share, count)

    def check_all(self, counts: Mapping[Share, int]) -> None:
        """Raise `EngineBusyError` if the queue has no place for one of several requests. See
        `QueuePlaces.check_all`.
        """
        engine = self._owner.engine
        if engine is not None:
            engine.places.check_all(counts)

    def reserve_all(self, counts: Mapping[Share, int]) -> Mapping[Share, Held]:
        """Reserve places in the queue for several requests: all of them or none. See
        `QueuePlaces.reserve_all`. Raises `BaseNotLoadedError` too.
        """
        engine = self._owner.engine
        if engine is None:
            raise BaseNotLoadedError(self._owner.name, BUSY_RETRY)
        return self._owner.reserve_all(engine, counts)


class CountedPlaces:
    """Places that one request has reserved in the queue. Until they are given back, the base stays loaded."""

    def __init__(self, held: Held, owner: PlacesOwner) -> None:
        self._held = held
        self._owner = owner

    @property
    def name(self) -> str:
        """The request's name in the engine. See `Held.name`."""
        return self._held.name

    @property
    def open(self) -> bool:
        """True if the request's place is still held. See `Held.open`."""
        return self._held.open

    def begin(self) -> None:
        """Count the request as running instead of waiting. See `Held.begin`."""
        self._held.begin()

    def close(self) -> None:
        """Give back the request's place in the queue. See `Held.close`."""
        self._held.close()
        self._owner.released()


@dataclass(frozen=True, slots=True)
class KnownAdapters:
    """Adapters that will be resident once the base is loaded."""

    open: frozenset[str]

    @property
    def held(self) -> Collection[str]:
        """Digests of the adapters that take a slot, including those that are being loaded or unloaded. See
        `OpenAdapters.held`.
        """
        return self.open

    def in_use(self, digest: str) -> bool:
        """True if a running or waiting request uses the adapter. See `OpenAdapters.in_use`."""
        return False
