"""How a change divides the requests for an alias: a canary's shares, a shadow, or all to the active version.

Each function looks at the registry and answers what is to be recorded and written; `Store` does both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapters.errors import StoreError
from adapters.ledger import Record
from adapters.registry.ledger_records import division, told_division
from adapters.registry.listing import Held, Shelf
from adapters.registry.pointers import Actives, Line
from adapters.registry.traffic import Shadow, Split, checked_percent, checked_shares, now


@dataclass(frozen=True, slots=True)
class Division:
    """How the requests for an alias are divided from now on, and how they were."""

    active: Held
    before: Line
    after: Line
    actives: Actives
    """The whole state that holds it."""
    record: Record | None
    """What the ledger is told; None where nothing changes."""


def canary(shelf: Shelf, alias: str, shares: Mapping[str, float]) -> Division:
    """As `Store.canary`."""
    active = _active(shelf, alias, "canary")
    versions = [shelf.find(f"{active.alias}@{version}") for version in shares]
    named = dict(zip((held.version.lower() for held in versions), shares.values(), strict=True))
    try:
        if len(named) < len(shares):
            raise ValueError(
                f"shares ({', '.join(shares)}) name a version twice: give each version one share."
            )
        canaries = checked_shares(named, active.version)
    except ValueError as problem:
        raise StoreError(str(problem)) from None
    split, shadow = Split(active.version.lower(), canaries, now()), shelf.actives.line(active.alias).shadow
    if shadow is not None and shadow.version in split.shares:
        shadow = None
    return _divided("canary", shelf, active, versions, split, shadow)


def shadow(shelf: Shelf, name: str, share: float) -> Division:
    """As `Store.shadow`."""
    held = shelf.find(name)
    active, split = _active(shelf, held.alias, "shadow"), shelf.actives.line(held.alias).split
    if held == active or (split is not None and held.version.lower() in split.shares):
        raise StoreError(f"{held.full_name} answers requests already: shadow another version.")
    try:
        wanted = Shadow(held.version.lower(), checked_percent("share", share), now())
    except ValueError as problem:
        raise StoreError(str(problem)) from None
    return _divided("shadow", shelf, active, [held], split, wanted)


def settle(
    shelf: Shelf, alias: str, reason: str, since: str | None, metrics: Mapping[str, float] | None
) -> Division:
    """As `Store.settle`."""
    active = _active(shelf, alias, "settle")
    line = shelf.actives.line(active.alias)
    split = line.split if line.split and since not in (None, line.split.since) else None
    shadow = line.shadow if line.shadow and since not in (None, line.shadow.since) else None
    if (split, shadow) == (line.split, line.shadow):
        return Division(active, line, line, shelf.actives, None)
    return _divided("settle", shelf, active, [], split, shadow, metrics=metrics, reason=reason)


def _active(shelf: Shelf, alias: str, verb: str) -> Held:
    """The active version of `alias`, which is to name no version."""
    if "@" in alias:
        raise StoreError(f"{alias} names a version, and {verb} takes an alias.")
    return shelf.find(alias)


def _divided(
    action: str,
    shelf: Shelf,
    active: Held,
    versions: Sequence[Held],
    split: Split | None,
    shadow: Shadow | None,
    *,
    metrics: Mapping[str, float] | None = None,
    reason: str = "",
) -> Division:
    for held in versions:
        if shelf.is_retired(held):
            raise StoreError(f"{held.full_name} is retired: promote it, or name one that is served.")
    before, actives = shelf.actives.line(active.alias), shelf.actives
    if actives.active(active.alias) != active.version.lower():
        # What stands for the alias by its number alone must not move when a higher version is added.
        actives = actives.promoted(active.alias, active.version)
    actives = actives.divided(active.alias, split, shadow)
    after = actives.line(active.alias)
    read = [held.read() for held in versions]
    told = {"now": told_division(after), "before": told_division(before)}
    record = division(action, active.alias, read, **told, metrics=metrics, reason=reason)
    return Division(active, before, after, actives, record)
