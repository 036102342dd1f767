"""Counts the requests that run or wait in an engine, and decides fairly which request to refuse if the engine
is full.

Each running or waiting answer takes one place, so a request with `n` choices takes `n` places. The request
holds them from before it is tokenized until its answers have ended. A share is all requests with the same API
key and adapter.

While there are free places, any share can take one. If there are none, each share is still entitled to a fair
part of the queue: `part_of(queue, shares that wait)`. Then the share that exceeds its part most loses its
newest waiting request, which fails as if it had been refused. A running request is never ended to make room.
If no waiting request can be removed, the queue grows beyond its limit: at most by one place for each share or
by its own size, whichever is more.

Use it on the event loop only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from server.engines.shared.fairness import part_of
from server.engines.shared.stream import RequestWork
from server.errors import EngineBusyError
from server.request import Share

LONGEST_RETRY = 600.0
"""Maximum value of the header `Retry-After` in seconds."""

_LEARNING = 0.05
"""Weight of the newest request in the moving average of the seconds that a request runs."""


class PlacedStream(Protocol):
    """An answer that takes one of the engine's places, running or waiting."""

    @property
    def work(self) -> RequestWork:
        """The request that this answer belongs to, and the time at which its generation began."""
        ...


Stream = TypeVar("Stream", bound=PlacedStream)


@dataclass(slots=True, eq=False)
class ShareLoad(Generic[Stream]):
    """The places that are taken by the requests of one share (one API key with one adapter)."""

    live: int = 0
    """Number of places that requests with this API key and adapter have reserved or use."""
    held: int = 0
    """Number of places that requests with this API key and adapter have reserved, and that no answer uses
    yet.
    """
    waiting: dict[str, Stream] = field(default_factory=dict[str, Any])
    """Maps the request id of each answer that uses a place but does not run yet to that answer, oldest
    first.
    """
    groups: dict[str, Reservation[Stream]] = field(default_factory=dict[str, Any])
    """Maps the name of each reservation with this API key and adapter to the reservation, oldest first."""

    def queued(self) -> int:
        """Return how many places of this API key and adapter do not run: places that no answer uses yet, and
        places of answers that still wait.

        First removes answers that have begun to run from `waiting`.
        """
        while self.waiting:
            request_id, first = next(iter(self.waiting.items()))
            if first.work.scheduled is None:
                break
            del self.waiting[request_id]
        return self.held + len(self.waiting)


class Reservation(Generic[Stream]):
    """The places that one request has reserved, until its answers have ended and the reservation is
    closed.
    """

    __slots__ = ("_places", "begun", "held", "lost", "name", "open", "runs", "share", "streams")

    def __init__(self, places: Places[Stream], name: str, share: Share, count: int) -> None:
        self._places = places
        self.name = name
        self.share = share
        self.held = count
        """Number of places that no answer has claimed yet."""
        self.streams: dict[str, Stream] = {}
        """Maps each request id to the answer that has claimed a place."""
        self.open = True
        """True until every place was claimed, or the reservation was closed."""
        self.begun = False
        """True once any of the reservation's answers has begun to run."""
        self.runs = False
        """True if the unclaimed places count as running; see `begin`."""
        self.lost: EngineBusyError | None = None
        """Error for the request if its places were given to another request; None otherwise."""

    def begin(self) -> None:
        """Count all unclaimed places as running.

        For a request that uses its places at once, without claiming them one by one. Raises `EngineBusyError`
        if the places were given to another request.
        """
        if self.lost is not None:
            raise self.lost
        self._places.begin(self)

    def close(self) -> None:
        """Give back every place that no answer has claimed. Idempotent."""
        self._places.close(self)

    @property
    def waits(self) -> bool:
        """True if none of the reservation's answers has begun to run."""
        if not self.begun:
            self.begun = any(stream.work.scheduled is not None for stream in self.streams.values())
        return not self.begun


class Places(Generic[Stream]):
    """All places in an engine's batch and queue.

    At most `at_once` answers run together, and `queue` more may wait. `withdraw` is called with a waiting
    answer and an error, to end the answer because its place was given to another request.
    """

    def __init__(
        self, *, at_once: int, queue: int, withdraw: Callable[[Stream, EngineBusyError], None]
    ) -> None:
        self._at_once = at_once
        self._queue = queue
        self._withdraw = withdraw
        self._shares: dict[Share, ShareLoad[Stream]] = {}
        self._reservations: dict[str, Reservation[Stream]] = {}
        self._names = itertools.count(1)
        self._live = self._background = 0
        self.full = self._at_once + self._queue <= 0
        """True if no place is free. Then only a client with less than its fair part of the queue gets one."""
        self._seconds_per_request = 1.0

    @property
    def limit(self) -> int:
        """Maximum number of answers that run and wait together."""
        return self._at_once + self._queue

    @property
    def free(self) -> int:
        """Number of further places that any request can take now. Even if it is 0, a client that holds less
        than its fair part gets another place.
        """
        return max(0, self.limit - self._live)

    @property
    def live(self) -> int:
        """Number of places that are taken, without those of background requests."""
        return self._live

    def resize(self, at_once: int) -> None:
        """Change the maximum number of answers that run together to `at_once`. Running answers continue."""
        self._at_once = at_once
        self.full = self._live >= self.limit

    def check(self, share: Share, count: int = 1) -> None:
        """Raise `EngineBusyError` if the queue has no room for `count` requests, without reserving places."""
        if share.background:
            free = self._at_once + self._queue - self._live - self._background
            if count > free:
                raise EngineBusyError(
                    "the engine's queue is full, so this background request is refused; retry shortly", 1.0
                )
            return
        self.check_all({share: count})

    def check_all(self, counts: Mapping[Share, int]) -> None:
        """Raise `EngineBusyError` if the queue has no room for all the requests in `counts`, without
        reserving places. None of them may be a background request.
        """
        if self._live + sum(counts.values()) <= self._at_once + self._queue:
            return
        part = self._part(counts)
        for share, count in counts.items():
            mine = self._shares.get(share)
            waiting = mine.queued() if mine is not None else 0
            if waiting + count > part:
                live = mine.live if mine is not None else 0
                retry = self._retry_after(live)
                raise EngineBusyError(
                    f"The server's queue is full, and {live} requests with this API key and adapter are "
                    f"running or waiting. Retry after {retry:.0f} seconds.",
                    retry_after=retry,
                )

    def reserve(self, share: Share, count: int = 1) -> Reservation[Stream]:
        """Reserve `count` places for requests with one API key and adapter (`share`), until they are claimed
        or given back. Raises `EngineBusyError` if there is no room.
        """
        if not share.background:
            return self.reserve_all({share: count})[share]
        self.check(share, count)
        reservation = Reservation(self, f"r{next(self._names)}", share, count)
        self._open(reservation)
        return reservation

    def reserve_all(self, counts: Mapping[Share, int]) -> dict[Share, Reservation[Stream]]:
        """Reserve places for several API keys or adapters, all of them or none. Raises `EngineBusyError` if
        there is no room.

        `counts` maps each pair of API key and adapter to its number of places. None of these pairs loses a
        waiting request to another one of them.
        """
        self.check_all(counts)
        made: dict[Share, Reservation[Stream]] = {}
        for share, count in counts.items():
            self._make_room(share, count)
            made[share] = Reservation(self, f"r{next(self._names)}", share, count)
            self._open(made[share])
        return made

    def hold(self, share: Share) -> Reservation[Stream]:
        """Reserve one place even if none is free, for the engine's own test of an adapter."""
        reservation = Reservation(self, f"r{next(self._names)}", share, 1)
        self._open(reservation)
        return reservation

    def find(self, name: str) -> Reservation[Stream] | None:
        """Return the reservation called `name`; None if it is unknown or all its places are claimed."""
        found = self._reservations.get(name)
        return found if found is not None and (found.held or found.lost is not None) else None

    def claim(self, reservation: Reservation[Stream], stream: Stream) -> None:
        """Let the answer `stream` use one of the reserved places. Raises `EngineBusyError` if the places were
        given to another request.
        """
        if reservation.lost is not None:
            raise reservation.lost
        request_id = stream.work.request.request_id
        load = self._shares[reservation.share]
        reservation.held -= 1
        reservation.open = reservation.held > 0
        load.held -= 1
        reservation.streams[request_id] = load.waiting[request_id] = stream

    def leave(self, reservation: Reservation[Stream], stream: Stream, lasted: float | None) -> None:
        """Free the place of the answer `stream`, which ran for `lasted` seconds; None if it never ran."""
        request_id = stream.work.request.request_id
        if lasted is not None:
            self._seconds_per_request += _LEARNING * (lasted - self._seconds_per_request)
        load = self._shares[reservation.share]
        load.waiting.pop(request_id, None)
        if reservation.streams.pop(request_id, None) is not None:
            reservation.begun = reservation.begun or lasted is not None
            self._free(reservation, load, 1)

    def begin(self, reservation: Reservation[Stream]) -> None:
        """Count the unclaimed places of a reservation as running. See `Reservation.begin`."""
        if not reservation.runs and reservation.held:
            reservation.begun = reservation.runs = True
            self._shares[reservation.share].held -= reservation.held

    def close(self, reservation: Reservation[Stream]) -> None:
        """Give back the places of a reservation that no answer has claimed. See `Reservation.close`."""
        reservation.open = False
        self._give_back(reservation)
        if not reservation.streams:
            self._reservations.pop(reservation.name, None)

    def _give_back(self, reservation: Reservation[Stream]) -> None:
        count, reservation.held = reservation.held, 0
        if count:
            load = self._shares[reservation.share]
            if not reservation.runs:
                load.held -= count
            self._free(reservation, load, count)

    def _open(self, reservation: Reservation[Stream]) -> None:
        load = self._shares.setdefault(reservation.share, ShareLoad())
        load.live += reservation.held
        load.held += reservation.held
        load.groups[reservation.name] = self._reservations[reservation.name] = reservation
        self._count(reservation.share, reservation.held)

    def _free(self, reservation: Reservation[Stream], load: ShareLoad[Stream], count: int) -> None:
        load.live -= count
        self._count(reservation.share, -count)
        if not reservation.held and not reservation.streams:
            load.groups.pop(reservation.name, None)
            if reservation.lost is None:
                self._reservations.pop(reservation.name, None)
        if not load.live:
            del self._shares[reservation.share]

    def _count(self, share: Share, change: int) -> None:
        if share.background:
            self._background += change
        else:
            self._live += change
            self.full = self._live >= self._at_once + self._queue

    def _part(self, shares: Collection[Share]) -> int:
        """Return how many places of a full queue each client in `shares` is entitled to; 0 if no other client
        has a request. A client is one API key with one adapter.
        """
        others = [(other, load) for other, load in self._shares.items() if other not in shares]
        others = [(other, load) for other, load in others if not other.background]
        if not others:
            return 0
        return part_of(self._queue, len(shares) + sum(load.queued() > 0 for _, load in others))

    def _make_room(self, share: Share, count: int) -> None:
        """Make room for `count` places of one client (`share`): end the newest waiting requests of clients
        that hold more than their fair part. A client is one API key with one adapter.
        """
        while self._live + count > self._at_once + self._queue:
            victim = self._victim(share)
            if victim is None:
                return
            self._take_back(victim)

    def _victim(self, share: Share) -> Reservation[Stream] | None:
        waiting = {other: load.queued() for other, load in self._shares.items() if not other.background}
        part = part_of(self._queue, len({share, *(other for other, count in waiting.items() if count)}))
        over = [other for other, count in waiting.items() if count > part and other != share]
        for other in sorted(over, key=lambda other: waiting[other], reverse=True):
            for reservation in reversed(self._shares[other].groups.values()):
                if reservation.waits:
                    return reservation
        return None

    def _take_back(self, reservation: Reservation[Stream]) -> None:
        retry = self._retry_after(self._shares[reservation.share].live)
        reservation.lost = EngineBusyError(
            "The server's queue is full, so this waiting request was removed for a request of another API "
            "key "
            f"or adapter, which has fewer requests waiting. Retry after {retry:.0f} seconds.",
            retry_after=retry,
            gate="queue",
        )
        if not reservation.held:  # nothing of it will come to ask
            self._reservations.pop(reservation.name, None)
        self._give_back(reservation)
        for stream in list(reservation.streams.values()):
            self._withdraw(stream, reservation.lost)

    def _retry_after(self, live: int) -> float:
        """Estimate the seconds until `live` requests of one client have run, from the average time that
        earlier requests ran.
        """
        shares = sum(not share.background for share in self._shares)
        rows = part_of(self._at_once, shares)
        return min(LONGEST_RETRY, max(1.0, self._seconds_per_request * live / rows))
