"""How the requests for one alias are divided: a canary's shares, and a shadow's. Pure, no files.

A conversation stays with its version as long as that version's share does not shrink: each canary draws its
own point from the conversation, and takes it where the point lies below its share, so that a larger share
holds all that a smaller one held. The points depend on names alone, so every server divides alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b

from adapters import names

MOST_VERSIONS = 16
"""Most versions that one alias is divided between."""
ROUNDING = 0.01
"""Percent by which shares may miss 100, as 33.33 three times does."""
_POINTS = 2.0**64
_TOLD = 4096
"""Characters of each text that tell a conversation from others."""


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """An alias's requests between its active version and canaries. Versions are in lower case."""

    active: str
    """The version that has what the canaries leave."""
    canaries: tuple[tuple[str, float], ...]
    """Version and percent of each, in natural order of the versions; none is the active one."""
    since: str
    """When it was set, which tells it from any other."""
    ended: frozenset[str] = frozenset()
    """Canaries that a server does not take: what they would answer goes to the active version."""

    @property
    def shares(self) -> dict[str, float]:
        """Version → percent, the active one first."""
        canaries = {version: percent for version, percent in self.canaries if version not in self.ended}
        return {self.active: round(100.0 - sum(canaries.values()), 6), **canaries}

    def version(self, alias: str, conversation: bytes) -> str:
        """The version that answers `conversation`. A larger share of one canary takes from no smaller one.

        With several canaries each takes its part of what those before it left.
        """
        left = 100.0
        for version, percent in self.canaries:
            if point(alias, version, conversation) * left < percent:
                return self.active if version in self.ended else version
            left -= percent
        return self.active


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that also answers a part of an alias's requests, without anyone seeing its answers."""

    version: str
    """In lower case."""
    percent: float
    since: str
    """When it was set, which tells it from any other."""

    def takes(self, alias: str, conversation: bytes) -> bool:
        """Whether it also answers `conversation`."""
        return point(alias, f"{self.version} shadow", conversation) * 100.0 < self.percent


def conversation_key(parts: Iterable[str]) -> bytes:
    """What tells a conversation from others, made of texts that all its requests share; 32 bytes."""
    told = "\0".join(part[:_TOLD] for part in parts)
    return blake2b(told.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def point(alias: str, salt: str, conversation: bytes) -> float:
    """Where a conversation falls from 0 up to 1, by BLAKE2b keyed with names (RFC 7693).

    Another salt, such as another version's name, gives a point that is independent of this one.
    """
    return int.from_bytes(blake2b(conversation, digest_size=8, key=_key(alias, salt)).digest()) / _POINTS


@lru_cache(1024)
def _key(alias: str, salt: str) -> bytes:
    return blake2b(f"{alias.lower()} {salt}".encode(), digest_size=32).digest()


def check_shares(shares: Mapping[str, float], active: str) -> tuple[tuple[str, float], ...]:
    """The canaries of `shares` (version → percent), which must name `active` and add up to 100.

    Raises `ValueError` with the field, the value and what helps.
    """
    found = {version.lower(): check_percent(f"shares.{version}", share) for version, share in shares.items()}
    told = ", ".join(f"{version}={share:g}" for version, share in found.items()) or "nothing"
    if active.lower() not in found:
        raise ValueError(f"shares ({told}) leave out the active version {active}: give it a share too.")
    if not 2 <= len(found) <= MOST_VERSIONS:
        problem = f"name {len(found)} versions, not 2 to {MOST_VERSIONS}"
        raise ValueError(f"shares ({told}) {problem}. To end a split, settle the alias.")
    whole = sum(found.values())
    if abs(whole - 100.0) > ROUNDING or whole - found[active.lower()] >= 100.0:
        raise ValueError(f"shares ({told}) add up to {whole:g}, not to 100: change one of them.")
    canaries = sorted(found.items(), key=lambda item: names.natural(item[0]))
    return tuple((version, share) for version, share in canaries if version != active.lower())


def check_percent(field: str, value: float) -> float:
    """`value` where it is above 0 and at most 100; `ValueError` with the `field` otherwise."""
    if isinstance(value, bool) or not math.isfinite(value) or not 0 < value <= 100:
        raise ValueError(f"{field} is {value!r}: give a percentage above 0 and at most 100.")
    return float(value)


def now() -> str:
    """The present moment as `since`: UTC to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def shares_to_json(split: TrafficSplit | None, shadow: Shadow | None) -> dict[str, dict[str, float]]:
    """Shares as JSON: `shares` by version, and `shadow`; each empty where there is none."""
    return {
        "shares": split.shares if split is not None else {},
        "shadow": {shadow.version: shadow.percent} if shadow is not None else {},
    }


def format_shares(split: TrafficSplit | None, shadow: Shadow | None) -> str:
    """Shares in one line, such as `v1.1 90%, v1.2 10%, v1.3 shadows 5%`; empty where nothing is divided."""
    found = [] if split is None else [f"{version} {share:g}%" for version, share in split.shares.items()]
    if shadow is not None:
        found.append(f"{shadow.version} shadows {shadow.percent:g}%")
    return ", ".join(found)
