"""A request router for Ray Serve that tries the replicas in the order that each call gives.

The server's process (the ingress) decides this order (`server.engines.ray.placement`), since only it knows
the prefixes, adapters and load of each replica. Ray's own PrefixCacheAffinityRouter does not fit: it compares
text instead of tokens, ignores adapters, and asks a Ray actor about each request while all others wait.
"""

# Ray is not installed where types are checked, so its types are unknown there.
# pyright: basic, reportMissingImports=false

from __future__ import annotations

from typing import Any

from ray.serve.request_router import (
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

from server.engines.ray import running
from server.engines.ray.calls import EngineCall, ReplicaCall


class RankedRouter(RequestRouter):
    """Ray Serve router that tries the replicas in a call's `ranked` in order, then all others, those with the
    shortest queue first.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return groups of replicas that may take the request, the preferred group first. See
        `RequestRouter.choose_replicas`.
        """
        call: Any = pending_request.args[0] if pending_request is not None and pending_request.args else None
        if not isinstance(call, EngineCall | ReplicaCall):
            return [candidate_replicas]
        by_id = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        ranked = [by_id.pop(name) for name in call.ranked if name in by_id]
        if ranked and isinstance(call, ReplicaCall):
            return [ranked]  # other replicas would refuse it
        return [*([replica] for replica in ranked), list(by_id.values())]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Record which replicas exist now. See `RequestRouter.update_replicas`."""
        super().update_replicas(replicas)
        self._note()

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Record that a replica has died. See `RequestRouter.on_replica_actor_died`."""
        super().on_replica_actor_died(replica_id)
        self._note()

    def _note(self) -> None:
        deployment = self._deployment_id
        names = frozenset(replica_id.unique_id for replica_id in self.curr_replicas)
        running.REPLICAS[deployment.app_name, deployment.name] = names
