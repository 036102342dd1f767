"""What this side of Ray does with calls and errors, without a cluster."""

# Ray is not installed where types are checked, so everything of its is unknown there.
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError, RayTaskError
from ray.serve.exceptions import RayServeException

from server.engines.ray.calls import EngineCall, ReplicaCall, ReplicaLostError
from server.engines.ray.handle import as_lost_replica
from server.engines.ray.router import RankedRouter
from server.request import GenerationRequest, Sampling

pytestmark = pytest.mark.anyio


async def ranked(call: object, names: str) -> list[list[str]]:
    replicas = [SimpleNamespace(replica_id=SimpleNamespace(unique_id=name)) for name in names]
    router: Any = None  # which choosing does not read
    pending: Any = SimpleNamespace(args=[call])
    groups: Any = await RankedRouter.choose_replicas(router, replicas, pending)
    return [[replica.replica_id.unique_id for replica in group] for group in groups]


def engine_call(*names: str) -> EngineCall:
    request = GenerationRequest(request_id="r", prompt=(1,), sampling=Sampling(max_tokens=1))
    return EngineCall(request=request, adapters=(), ranked=names)


async def test_replicas_are_tried_as_ranked_and_then_all_others() -> None:
    assert await ranked(engine_call("c", "gone", "a"), "abcd") == [["c"], ["a"], ["b", "d"]]
    assert await ranked(engine_call(), "ab") == [["a", "b"]]
    assert await ranked("something else", "ab") == [["a", "b"]]


async def test_what_is_for_one_replica_goes_to_no_other_while_it_is_there() -> None:
    assert await ranked(ReplicaCall(replica="b"), "abc") == [["b"]]
    assert await ranked(ReplicaCall(replica="gone"), "abc") == [["a", "b", "c"]]


@pytest.mark.parametrize(
    "error", [ActorUnavailableError("away", None), RayServeException(), asyncio.CancelledError()]
)
async def test_a_replica_that_does_not_answer_is_lost(error: BaseException) -> None:
    with pytest.raises(ReplicaLostError), as_lost_replica():
        raise error


async def test_an_error_of_the_replicas_own_code_is_no_loss() -> None:
    with pytest.raises(RayTaskError), as_lost_replica():
        raise RayTaskError("stream", "traceback", ValueError("broken"))


async def test_a_call_that_is_given_up_here_is_no_loss() -> None:
    async def waits() -> None:
        with as_lost_replica():
            await asyncio.sleep(60)

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
