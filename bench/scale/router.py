"""Choose a replica for a request: in turn, by the least load, or by where its adapter and its session are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Protocol

from bench.scale.replica import Replica, SimulatedFleet
from bench.scale.workload import FleetRequest

BOUND = 1.25
"""Limit for routing by adapter or session: a replica with more than this many times the mean load, plus one
request, is passed over.
"""


class FleetRouter(Protocol):
    """Interface of routers, which choose a replica for each request."""

    def choose(self, request: FleetRequest, in_flight: int) -> Replica:
        """Return the replica for `request`. `in_flight` is the number of unfinished requests in the fleet."""
        ...


class RoundRobin:
    """Sends requests to the replicas in turn."""

    def __init__(self, fleet: SimulatedFleet) -> None:
        self._fleet, self._turn = fleet, -1

    def choose(self, request: FleetRequest, in_flight: int) -> Replica:
        """Return the next replica in turn."""
        self._turn = (self._turn + 1) % len(self._fleet.replicas)
        return self._fleet.replicas[self._turn]


class LeastLoaded:
    """Chooses the replica with the fewest unfinished requests."""

    def __init__(self, fleet: SimulatedFleet) -> None:
        self._fleet = fleet

    def choose(self, request: FleetRequest, in_flight: int) -> Replica:
        """Return the replica with the fewest unfinished requests, the first if there are several."""
        return min(self._fleet.replicas, key=lambda replica: replica.load)


class Affinity:
    """Chooses the replica that served the session last, or else the home replica of the request's adapter,
    unless it has too many requests.

    Homes are assigned by rendezvous hashing (Thaler and Ravishankar, 1998): each adapter has an order of the
    replicas. The request goes to the first replica in this order that has at most 1.25 times the mean load
    plus one request, as in consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2018).
    """

    def __init__(self, fleet: SimulatedFleet) -> None:
        self._fleet, self._version = fleet, -1
        self._orders: dict[int, list[Replica]] = {}
        self._sessions: dict[int, Replica] = {}

    def choose(self, request: FleetRequest, in_flight: int) -> Replica:
        """Return the replica of the request's session if it has room, or else the first replica with room in
        the order of the request's adapter.
        """
        if self._version != self._fleet.version:
            self._version, self._orders = self._fleet.version, {}
        most = BOUND * in_flight / len(self._fleet.replicas) + 1
        known = self._sessions.get(request.session) if request.session else None
        if known is not None and not known.draining and known.load <= most:
            return known
        order = self._orders.get(request.adapter)
        if order is None:
            order = self._orders[request.adapter] = sorted(
                self._fleet.replicas, key=lambda replica: _weight(request.adapter, replica.number)
            )
        found = next((replica for replica in order if replica.load <= most), order[0])
        if request.session:
            self._sessions[request.session] = found
        return found


def _weight(adapter: int, replica: int) -> bytes:
    return hashlib.blake2b(b"%d/%d" % (adapter, replica), digest_size=8).digest()


ROUTERS: Mapping[str, Callable[[SimulatedFleet], FleetRouter]] = {
    "affinity": Affinity,
    "least-loaded": LeastLoaded,
    "round-robin": RoundRobin,
}
