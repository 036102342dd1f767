"""Sets canaries and shadows at a client's request. Every version is loaded before it gets requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.registry.listing import RegistryListing, VersionFolder
from adapters.registry.pointers import AliasState
from adapters.registry.registry import ShareChange
from adapters.registry.traffic import check_shares, shares_to_json
from server.errors import bad_field
from server.live.follower import RegistryFollower
from server.live.registry_changes import RegistryChanges
from server.live.runtime import Runtime
from server.rollout.rollouts import Rollouts


@dataclass(frozen=True, slots=True)
class AliasShares:
    """How the requests for an alias are divided between its versions now."""

    active: VersionFolder
    state: AliasState
    live: bool
    """True if this server has applied the change. If not, the log has the reason."""


class RolloutChanges:
    """Changes how requests are divided between versions, on this server and all that follow its registry."""

    def __init__(
        self,
        runtime: Runtime,
        rollouts: Rollouts,
        follower: RegistryFollower,
        registry_changes: RegistryChanges,
    ) -> None:
        self._runtime = runtime
        self._rollouts = rollouts
        self._follower = follower
        self._registry_changes = registry_changes

    async def canary(self, alias: str, shares: Mapping[str, float]) -> AliasShares:
        """Divide the requests for `alias`: `shares` maps versions, including the active one, to percent, 100
        in total.
        """

        def wanted(listing: RegistryListing) -> Iterable[VersionFolder]:
            active = self._active(listing, alias)
            try:
                check_shares(shares, active.version)
            except ValueError as error:
                raise bad_field("shares", str(error), code="invalid_value") from None
            return [self._registry_changes.find(listing, f"{active.alias}@{version}") for version in shares]

        return await self._divide(wanted, lambda: self._registry_changes.registry.canary(alias, shares))

    async def shadow(self, alias: str, version: str, share: float) -> AliasShares:
        """Let `version` also answer `share` percent of the requests for `alias`, without clients seeing its
        answers.
        """

        def wanted(listing: RegistryListing) -> Iterable[VersionFolder]:
            active = self._active(listing, alias)
            return [self._registry_changes.find(listing, f"{active.alias}@{version}")]

        name = f"{alias}@{version}"
        return await self._divide(wanted, lambda: self._registry_changes.registry.shadow(name, share))

    async def settle(self, alias: str, reason: str) -> AliasShares:
        """Send all requests for `alias` to its active version again."""

        def wanted(listing: RegistryListing) -> Iterable[VersionFolder]:
            self._active(listing, alias)
            return ()

        return await self._divide(wanted, lambda: self._registry_changes.registry.settle(alias, reason))

    async def describe(self, alias: str) -> dict[str, Any]:
        """Return how requests are divided on this server and in the registry, with the measurements."""
        listing = await self._registry_changes.listing()
        active = self._active(listing, alias)
        names, key = self._runtime.served.snapshot, active.alias.lower()
        state = listing.pointers.state(active.alias)
        return {
            "alias": active.alias,
            "active": active.version,
            **shares_to_json(names.splits.get(key), names.shadows.get(key)),
            "wanted": shares_to_json(state.split, state.shadow),
            "trials": [trial for trial in self._rollouts.to_json() if trial["adapter"].lower() == key],
        }

    def _active(self, listing: RegistryListing, alias: str) -> VersionFolder:
        if "@" in alias:
            raise bad_field(
                "name",
                f"{alias[:128]} names a version; use only its alias, without @ and the version.",
                code="alias_needed",
            )
        return self._registry_changes.find(listing, alias)

    async def _divide(
        self, wanted: Callable[[RegistryListing], Iterable[VersionFolder]], work: Callable[[], ShareChange]
    ) -> AliasShares:
        async with self._follower.change_lock:
            async with self._registry_changes.ready(*wanted(await self._registry_changes.listing())):
                done = await self._registry_changes.ask(work)
            await self._registry_changes.follow_now()
            names, key = self._runtime.served.snapshot, done.active.alias.lower()
            here = names.splits.get(key), names.shadows.get(key)
            return AliasShares(done.active, done.after, here == (done.after.split, done.after.shadow))
