"""Places of an engine, running and waiting: how many there are, whose they are, and who makes room.

A place is held from before a request's tokens are known until its answer ends, `n` of them for `n` choices.
While there are free places anyone may take one. Once there are none, a share (key and adapter) still gets
its own part of the queue, `part_of(queue, shares that wait)`: the newest waiting request of the share that
has most beyond its part makes room, and fails as if it had been refused. What has begun to run is never
ended for another, so if nobody can make room, the queue grows by the newcomer: to at most one for each
share, or the queue's size again.

Used on the event loop alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from server.engines.shared.fairness import part_of
from server.engines.shared.stream import DeltaStream
from server.errors import EngineBusyError
from server.request import Share

LONGEST_RETRY = 600.0
"""Most seconds that a client is asked to stay away."""

_LEARNING = 0.05
"""Share of the newest request in the mean time that requests run."""


@dataclass(slots=True, eq=False)
class ShareLoad:
    """What one share has of the places."""

    live: int = 0
    """All its places."""
    held: int = 0
    """Of these, those that no request has claimed yet; they wait."""
    waiting: dict[str, DeltaStream] = field(default_factory=dict[str, DeltaStream])
    """Request id → what has been claimed and not begun to run, oldest first; see `queued`."""
    groups: dict[str, Reservation] = field(default_factory=dict[str, "Reservation"])
    """By name, oldest first."""

    def queued(self) -> int:
        """Places that wait. What runs by now is taken out first; a share's requests begin in order."""
        while self.waiting:
            request_id, first = next(iter(self.waiting.items()))
            if first.work.scheduled is None:
                break
            del self.waiting[request_id]
        return self.held + len(self.waiting)


class Reservation:
    """Places for one request of a client, until its streams have ended and it is closed."""

    __slots__ = ("_places", "begun", "held", "lost", "name", "open", "runs", "share", "streams")

    def __init__(self, places: Places, name: str, share: Share, count: int) -> None:
        self._places = places
        self.name = name
        self.share = share
        self.held = count
        """Places not claimed."""
        self.streams: dict[str, DeltaStream] = {}
        """Request id → what holds a claimed place."""
        self.open = True
        """True until every place was claimed, or it was closed."""
        self.begun = False
        """True once any of it has begun to run."""
        self.runs = False
        """True if the places that are held count as running; see `begin`."""
        self.lost: EngineBusyError | None = None
        """Why its places went to another."""

    def begin(self) -> None:
        """Count the places as running; raise `EngineBusyError` if they have gone to another.

        For work that holds its places without claiming them one by one.
        """
        if self.lost is not None:
            raise self.lost
        self._places.begin(self)

    def close(self) -> None:
        """Give back every place that is not claimed. Idempotent."""
        self._places.close(self)

    @property
    def waits(self) -> bool:
        """Whether none of it has begun to run."""
        if not self.begun:
            self.begun = any(stream.work.scheduled is not None for stream in self.streams.values())
        return not self.begun


class Places:
    """All places: `at_once` requests run together, and `queue` more may wait.

    `withdraw` ends a stream whose place has gone to another, with the error.
    """

    def __init__(
        self, *, at_once: int, queue: int, withdraw: Callable[[DeltaStream, EngineBusyError], None]
    ) -> None:
        self._at_once = at_once
        self._queue = queue
        self._withdraw = withdraw
        self._shares: dict[Share, ShareLoad] = {}
        self._reservations: dict[str, Reservation] = {}
        self._names = itertools.count(1)
        self._live = self._background = 0
        self.full = self._at_once + self._queue <= 0
        """True if no place is free: only who has less than its part of the queue gets another."""
        self._seconds_per_request = 1.0

    @property
    def limit(self) -> int:
        """How many places there are."""
        return self._at_once + self._queue

    @property
    def free(self) -> int:
        """How many of them anyone may take; a full queue has places for who has less than its part."""
        return max(0, self.limit - self._live)

    @property
    def live(self) -> int:
        """Places that are taken, those of the background aside."""
        return self._live

    def check(self, share: Share, count: int = 1) -> None:
        """Raise `EngineBusyError` if `reserve` would. Changes nothing."""
        if share.background:
            free = self._at_once + self._queue - self._live - self._background
            if count > free:
                raise EngineBusyError("the queue is full, which leaves no room for background work", 1.0)
            return
        self.check_all({share: count})

    def check_all(self, counts: Mapping[Share, int]) -> None:
        """Raise `EngineBusyError` if `reserve_all` would. Changes nothing. None of them is background."""
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
                    f"The queue is full, and {live} requests of this key and adapter are running or "
                    f"waiting. Retry after {retry:.0f} seconds.",
                    retry_after=retry,
                )

    def reserve(self, share: Share, count: int = 1) -> Reservation:
        """Hold `count` places for `share` until they are claimed or given back. Raises as `check` does."""
        if not share.background:
            return self.reserve_all({share: count})[share]
        self.check(share, count)
        reservation = Reservation(self, f"r{next(self._names)}", share, count)
        self._open(reservation)
        return reservation

    def reserve_all(self, counts: Mapping[Share, int]) -> dict[Share, Reservation]:
        """Hold places for several shares, all of them or none. Raises as `check_all` does.

        None of them makes room for another: each was found to have its part with all of them in the queue.
        """
        self.check_all(counts)
        made: dict[Share, Reservation] = {}
        for share, count in counts.items():
            self._make_room(share, count)
            made[share] = Reservation(self, f"r{next(self._names)}", share, count)
            self._open(made[share])
        return made

    def hold(self, share: Share) -> Reservation:
        """A place of `share` whether there is one or not: for probes."""
        reservation = Reservation(self, f"r{next(self._names)}", share, 1)
        self._open(reservation)
        return reservation

    def find(self, name: str) -> Reservation | None:
        """The reservation of that name, if it has a place to claim or has lost them."""
        found = self._reservations.get(name)
        return found if found is not None and (found.held or found.lost is not None) else None

    def claim(self, reservation: Reservation, stream: DeltaStream) -> None:
        """Have `stream` hold one of the places. Raises `EngineBusyError` if they have gone to another."""
        if reservation.lost is not None:
            raise reservation.lost
        request_id = stream.work.request.request_id
        load = self._shares[reservation.share]
        reservation.held -= 1
        reservation.open = reservation.held > 0
        load.held -= 1
        reservation.streams[request_id] = load.waiting[request_id] = stream

    def leave(self, reservation: Reservation, stream: DeltaStream, lasted: float | None) -> None:
        """The stream's place is free. `lasted` is how many seconds it ran, None if it never did."""
        request_id = stream.work.request.request_id
        if lasted is not None:
            self._seconds_per_request += _LEARNING * (lasted - self._seconds_per_request)
        load = self._shares[reservation.share]
        load.waiting.pop(request_id, None)
        if reservation.streams.pop(request_id, None) is not None:
            reservation.begun = reservation.begun or lasted is not None
            self._free(reservation, load, 1)

    def begin(self, reservation: Reservation) -> None:
        """See `Reservation.begin`."""
        if not reservation.runs and reservation.held:
            reservation.begun = reservation.runs = True
            self._shares[reservation.share].held -= reservation.held

    def close(self, reservation: Reservation) -> None:
        """See `Reservation.close`."""
        reservation.open = False
        self._give_back(reservation)
        if not reservation.streams:
            self._reservations.pop(reservation.name, None)

    def _give_back(self, reservation: Reservation) -> None:
        count, reservation.held = reservation.held, 0
        if count:
            load = self._shares[reservation.share]
            if not reservation.runs:
                load.held -= count
            self._free(reservation, load, count)

    def _open(self, reservation: Reservation) -> None:
        load = self._shares.setdefault(reservation.share, ShareLoad())
        load.live += reservation.held
        load.held += reservation.held
        load.groups[reservation.name] = self._reservations[reservation.name] = reservation
        self._count(reservation.share, reservation.held)

    def _free(self, reservation: Reservation, load: ShareLoad, count: int) -> None:
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
        """What each of `shares` has for its own of a full queue; nothing as long as nobody else is there."""
        others = [(other, load) for other, load in self._shares.items() if other not in shares]
        others = [(other, load) for other, load in others if not other.background]
        if not others:
            return 0
        return part_of(self._queue, len(shares) + sum(load.queued() > 0 for _, load in others))

    def _make_room(self, share: Share, count: int) -> None:
        """Have the newest that wait of those beyond their part make room for `count` places of `share`."""
        while self._live + count > self._at_once + self._queue:
            victim = self._victim(share)
            if victim is None:
                return
            self._take_back(victim)

    def _victim(self, share: Share) -> Reservation | None:
        waiting = {other: load.queued() for other, load in self._shares.items() if not other.background}
        part = part_of(self._queue, len({share, *(other for other, count in waiting.items() if count)}))
        over = [other for other, count in waiting.items() if count > part and other != share]
        for other in sorted(over, key=lambda other: waiting[other], reverse=True):
            for reservation in reversed(self._shares[other].groups.values()):
                if reservation.waits:
                    return reservation
        return None

    def _take_back(self, reservation: Reservation) -> None:
        retry = self._retry_after(self._shares[reservation.share].live)
        reservation.lost = EngineBusyError(
            "The queue is full, and this request made room for another key or adapter. "
            f"Retry after {retry:.0f} seconds.",
            retry_after=retry,
            gate="queue",
        )
        if not reservation.held:  # nothing of it will come to ask
            self._reservations.pop(reservation.name, None)
        self._give_back(reservation)
        for stream in list(reservation.streams.values()):
            self._withdraw(stream, reservation.lost)

    def _retry_after(self, live: int) -> float:
        """Seconds until a share of so many places has been served its backlog, from how long requests ran."""
        shares = sum(not share.background for share in self._shares)
        rows = part_of(self._at_once, shares)
        return min(LONGEST_RETRY, max(1.0, self._seconds_per_request * live / rows))
