"""Interfaces between the ingress and an engine's replicas, which keep other modules independent of Ray."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from server.engines.ray.calls import Description, EngineCall, ReplicaCall, ReplicaStatus, SentFailure


class Replicas(Protocol):
    """The replicas of one engine. Every method raises `ReplicaLostError` if the replica is lost."""

    @property
    def known(self) -> frozenset[str]:
        """Ids of the replicas that take requests now."""
        ...

    def stream(self, call: EngineCall) -> AsyncGenerator[bytes, None]:
        """Generate: yield encoded frames. Closing the generator ends the request."""
        ...

    async def embed(self, call: EngineCall) -> tuple[float, ...] | SentFailure:
        """Return the embedding of a text, or the error."""
        ...

    async def status(self, call: ReplicaCall) -> ReplicaStatus:
        """Return the state of a replica."""
        ...

    async def load(self, call: ReplicaCall) -> bool | SentFailure:
        """Load an adapter. Return False if there is no free slot and none may be freed."""
        ...

    async def unload(self, call: ReplicaCall) -> None:
        """Unload an adapter once no request uses it."""
        ...


class ReplicaHost(Protocol):
    """The replica's side of `Replicas`."""

    def describe(self) -> Description:
        """Return the properties that all replicas of the engine share."""
        ...

    def stream(self, call: EngineCall) -> AsyncGenerator[bytes, None]:
        """Let a replica generate, and yield its answer as encoded frames. See `Replicas.stream`."""
        ...

    async def embed(self, call: EngineCall) -> tuple[float, ...] | SentFailure:
        """Let a replica embed a text. Return the vector, or the error. See `Replicas.embed`."""
        ...

    def status(self) -> ReplicaStatus:
        """Return the state of a replica. See `Replicas.status`."""
        ...

    async def load(self, call: ReplicaCall) -> bool | SentFailure:
        """Load an adapter into the replicas. See `Replicas.load`."""
        ...

    async def unload(self, call: ReplicaCall) -> None:
        """Unload an adapter once no request uses it. See `Replicas.unload`."""
        ...
