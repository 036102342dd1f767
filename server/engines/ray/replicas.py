"""Interfaces for the calls between the server's process (the ingress) and an engine's replicas. They keep
other modules independent of Ray.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from server.engines.ray.calls import Description, EngineCall, ReplicaCall, ReplicaStatus, SentFailure


class Replicas(Protocol):
    """Calls the replicas of one engine. Every method raises `ReplicaLostError` if the replica is lost."""

    @property
    def known(self) -> frozenset[str]:
        """Ids of the replicas that take requests now."""
        ...

    def stream(self, call: EngineCall) -> AsyncGenerator[bytes, None]:
        """Let a replica generate an answer, and yield the answer as encoded frames (see `calls.Frame`).
        Closing the generator ends the request.
        """
        ...

    async def embed(self, call: EngineCall) -> tuple[float, ...] | SentFailure:
        """Let a replica embed a text. Return the vector, or the error that the replica sent."""
        ...

    async def status(self, call: ReplicaCall) -> ReplicaStatus:
        """Return the state of the replica that `call` names."""
        ...

    async def load(self, call: ReplicaCall) -> bool | SentFailure:
        """Load an adapter into the replica that `call` names. Return False if the replica has no free adapter
        slot and may not evict an adapter, or the error if loading failed.
        """
        ...

    async def unload(self, call: ReplicaCall) -> None:
        """Unload an adapter from the replica that `call` names, once no request uses it."""
        ...


class ReplicaHost(Protocol):
    """The methods that each replica of an engine offers to the server's process, which calls them through
    `Replicas`.
    """

    def describe(self) -> Description:
        """Return the engine's properties, which are the same in all its replicas."""
        ...

    def stream(self, call: EngineCall) -> AsyncGenerator[bytes, None]:
        """Generate an answer in this replica, and yield the answer as encoded frames. See
        `Replicas.stream`.
        """
        ...

    async def embed(self, call: EngineCall) -> tuple[float, ...] | SentFailure:
        """Embed a text in this replica. Return the vector, or the error. See `Replicas.embed`."""
        ...

    def status(self) -> ReplicaStatus:
        """Return the state of this replica. See `Replicas.status`."""
        ...

    async def load(self, call: ReplicaCall) -> bool | SentFailure:
        """Load an adapter into this replica. See `Replicas.load`."""
        ...

    async def unload(self, call: ReplicaCall) -> None:
        """Unload an adapter from this replica once no request uses it. See `Replicas.unload`."""
        ...
