"""Plan how the requests for an alias are divided between its versions: canary, shadow, or all to the active
version.

Each function only reads the registry and returns the planned change. `Registry` records and applies it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapters.errors import RegistryError
from adapters.ledger import Record
from adapters.registry.ledger_records import division, division_to_json, folders_of
from adapters.registry.listing import RegistryListing, VersionFolder
from adapters.registry.pointers import AliasPointers, AliasState
from adapters.registry.traffic import Shadow, TrafficSplit, check_percent, check_shares, now


@dataclass(frozen=True, slots=True)
class ShareChange:
    """A planned change to how the requests for an alias are divided between its versions."""

    active: VersionFolder
    before: AliasState
    after: AliasState
    pointers: AliasPointers
    """The active and retired versions of all aliases, and their canaries and shadows, after the change."""
    record: Record | None
    """The ledger's record of the change. None if the plan changes nothing."""


def plan_canary(listing: RegistryListing, alias: str, shares: Mapping[str, float]) -> ShareChange:
    """Plan canaries of `alias`, versions that get a percentage of its requests, without changing anything.
    `shares` maps each version to its percentage. Raises the errors of `Registry.canary`, which applies the
    plan.
    """
    active = _active(listing, alias, "canary")
    versions = [listing.find(f"{active.alias}@{version}") for version in shares]
    named = dict(zip((entry.version.lower() for entry in versions), shares.values(), strict=True))
    try:
        if len(named) < len(shares):
            raise ValueError(
                f"shares ({', '.join(shares)}) name a version twice: give each version one percentage."
            )
        canaries = check_shares(named, active.version)
    except ValueError as problem:
        raise RegistryError(str(problem)) from None
    split, shadow = (
        TrafficSplit(active.version.lower(), canaries, now()),
        listing.pointers.state(active.alias).shadow,
    )
    if shadow is not None and shadow.version in split.shares:
        shadow = None
    return _change_shares("canary", listing, active, versions, split, shadow)


def plan_shadow(listing: RegistryListing, name: str, share: float) -> ShareChange:
    """Plan that `alias@version` also answers `share` percent of its alias's requests, unseen by clients (a
    shadow), without changing anything. Raises the errors of `Registry.shadow`, which applies the plan.
    """
    entry = listing.find(name)
    active, split = _active(listing, entry.alias, "shadow"), listing.pointers.state(entry.alias).split
    if entry == active or (split is not None and entry.version.lower() in split.shares):
        raise RegistryError(
            f"{entry.full_name} already answers requests for its alias: choose another version as the shadow."
        )
    try:
        wanted = Shadow(entry.version.lower(), check_percent("share", share), now())
    except ValueError as problem:
        raise RegistryError(str(problem)) from None
    return _change_shares("shadow", listing, active, [entry], split, wanted)


def plan_settle(
    listing: RegistryListing, alias: str, reason: str, since: str | None, metrics: Mapping[str, float] | None
) -> ShareChange:
    """Plan that all requests go to the active version again, without changing anything. See
    `Registry.settle`.
    """
    active = _active(listing, alias, "settle")
    state = listing.pointers.state(active.alias)
    split = state.split if state.split and since not in (None, state.split.since) else None
    shadow = state.shadow if state.shadow and since not in (None, state.shadow.since) else None
    if (split, shadow) == (state.split, state.shadow):
        return ShareChange(active, state, state, listing.pointers, None)
    return _change_shares("settle", listing, active, [], split, shadow, metrics=metrics, reason=reason)


def _active(listing: RegistryListing, alias: str, verb: str) -> VersionFolder:
    """Return the active version of `alias`. Raises `RegistryError` if `alias` has the form
    `alias@version`.
    """
    if "@" in alias:
        raise RegistryError(
            f"{alias} names a version, but this command needs an alias. Use {verb} with an alias."
        )
    return listing.find(alias)


def _change_shares(
    action: str,
    listing: RegistryListing,
    active: VersionFolder,
    versions: Sequence[VersionFolder],
    split: TrafficSplit | None,
    shadow: Shadow | None,
    *,
    metrics: Mapping[str, float] | None = None,
    reason: str = "",
) -> ShareChange:
    for entry in versions:
        if listing.is_retired(entry):
            raise RegistryError(
                f"{entry.full_name} is retired: promote it first, or choose a version that is served."
            )
    before, pointers = listing.pointers.state(active.alias), listing.pointers
    if pointers.active(active.alias) != active.version.lower():
        # What stands for the alias by its number alone must not move when a higher version is added.
        pointers = pointers.promote(active.alias, active.version, active.outside)
    pointers = pointers.set_split(active.alias, split, shadow)
    after = pointers.state(active.alias)
    read = [entry.read() for entry in versions]
    told = {"now": division_to_json(after), "before": division_to_json(before)}
    record = division(
        action, active.alias, read, **told, metrics=metrics, reason=reason, standing=folders_of(active)
    )
    return ShareChange(active, before, after, pointers, record)
