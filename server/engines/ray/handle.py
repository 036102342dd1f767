"""Calls the replicas of an engine through the handle of their Ray Serve deployment."""

# Ray is not installed where types are checked, so its types are unknown there.
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Generator
from contextlib import contextmanager
from contextvars import Context
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from server.engines.ray import running
from server.engines.ray.calls import (
    Description,
    EngineCall,
    ReplicaCall,
    ReplicaLostError,
    ReplicaStatus,
    SentFailure,
)


class RayReplicas:
    """The replicas of one Ray Serve deployment, called through its handle. See `Replicas`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle
        self._streams = handle.options(stream=True, method_name="stream")
        self._key = handle.app_name, handle.deployment_name

    @property
    def known(self) -> frozenset[str]:
        """Ids of the replicas that take requests now. See `Replicas.known`. Empty until the handle has sent
        its first call.
        """
        return running.REPLICAS.get(self._key, frozenset())

    async def describe(self) -> Description:
        """Return the engine's properties, which are the same in all replicas. Waits for the first replica."""
        return await self._handle.describe.remote()

    async def stream(self, call: EngineCall) -> AsyncGenerator[bytes, None]:
        """Let a replica generate an answer, and yield the answer as encoded frames. See `Replicas.stream`."""
        response = _alone(self._streams, call)
        ended = False
        try:
            with as_lost_replica():
                async for data in response:
                    yield data
            ended = True
        finally:
            if not ended:
                response.cancel()

    async def embed(self, call: EngineCall) -> tuple[float, ...] | SentFailure:
        """Let a replica embed a text. Return the vector, or the replica's error. See `Replicas.embed`."""
        return await _ask(_alone(self._handle.embed, call))

    async def status(self, call: ReplicaCall) -> ReplicaStatus:
        """Return the state of one replica. See `Replicas.status`."""
        return await _ask(_alone(self._handle.status, call))

    async def load(self, call: ReplicaCall) -> bool | SentFailure:
        """Load an adapter into one replica. See `Replicas.load`."""
        return await _ask(_alone(self._handle.load, call))

    async def unload(self, call: ReplicaCall) -> None:
        """Unload an adapter from one replica once no request uses it. See `Replicas.unload`."""
        await _ask(_alone(self._handle.unload, call))


def _alone(method: DeploymentHandle, call: EngineCall | ReplicaCall) -> Any:
    """Call `method` outside the context of the current HTTP request.

    Ray gives all calls within one HTTP request the same id. If several of them are routed at the same time,
    the router of Ray 2.60 loses all but one.
    """
    return Context().run(method.remote, call)


async def _ask(response: Awaitable[Any]) -> Any:
    with as_lost_replica():
        return await response


@contextmanager
def as_lost_replica() -> Generator[None]:
    """Context manager that turns Ray's errors about a lost replica into `ReplicaLostError`."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ReplicaLostError(
            "Ray cancelled the server's call to a replica, so the server treats this replica as lost"
        ) from None
    except RayTaskError:  # raised by the replica's own code
        raise
    except (RayError, RayServeException) as error:
        raise ReplicaLostError(type(error).__name__) from error
