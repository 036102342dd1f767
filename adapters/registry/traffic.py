"""Divides the requests for one alias between versions: canary shares and a shadow. Pure functions, no files.

A conversation stays with its version as long as that version's share does not shrink. Each canary computes a
point from the conversation, and answers it if the point lies below its share. So a larger share includes
every conversation of a smaller one. The points depend on names only, so every server divides alike.
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
"""Maximum number of versions that the requests for one alias can be divided between."""
ROUNDING = 0.01
"""Percent by which the sum of shares may differ from 100, such as for three times 33.33."""
_POINTS = 2.0**64
_TOLD = 4096
"""Characters of each text that are used to identify a conversation."""


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """Division of an alias's requests between its active version and canaries. Versions are in lower case."""

    active: str
    """The version that gets what the canaries leave."""
    canaries: tuple[tuple[str, float], ...]
    """Version and percent of each canary, in natural order of the versions. Never includes the active one."""
    since: str
    """Time when the split was set. It identifies this split."""
    ended: frozenset[str] = frozenset()
    """Canaries that this server no longer uses: the active version answers their requests."""

    @property
    def shares(self) -> dict[str, float]:
        """Maps each version to its percentage, the active one first."""
        canaries = {version: percent for version, percent in self.canaries if version not in self.ended}
        return {self.active: round(100.0 - sum(canaries.values()), 6), **canaries}

    def version(self, alias: str, conversation: bytes) -> str:
        """Return the version that answers `conversation`. A larger share of one canary never takes from a
        smaller one.

        With several canaries, each gets its part of what the earlier ones leave.
        """
        left = 100.0
        for version, percent in self.canaries:
            if point(alias, version, conversation) * left < percent:
                return self.active if version in self.ended else version
            left -= percent
        return self.active


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that also answers part of an alias's requests. Clients never see its answers."""

    version: str
    """The shadow's version, in lower case."""
    percent: float
    since: str
    """Time when the shadow was set. It identifies this shadow."""

    def takes(self, alias: str, conversation: bytes) -> bool:
        """True if the shadow also answers `conversation`."""
        return point(alias, f"{self.version} shadow", conversation) * 100.0 < self.percent


def conversation_key(parts: Iterable[str]) -> bytes:
    """Return 32 bytes that identify a conversation, from the texts that all its requests share."""
    told = "\0".join(part[:_TOLD] for part in parts)
    return blake2b(told.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def point(alias: str, salt: str, conversation: bytes) -> float:
    """Map a conversation to a number from 0 up to 1, by BLAKE2b keyed with names (RFC 7693).

    Another salt, such as another version's name, gives an independent number.
    """
    return int.from_bytes(blake2b(conversation, digest_size=8, key=_key(alias, salt)).digest()) / _POINTS


@lru_cache(1024)
def _key(alias: str, salt: str) -> bytes:
    return blake2b(f"{alias.lower()} {salt}".encode(), digest_size=32).digest()


def check_shares(shares: Mapping[str, float], active: str) -> tuple[tuple[str, float], ...]:
    """Return the canaries of `shares` (percent by version). The shares must name `active` and add
    up to 100.

    Raises `ValueError` with the field, the value and the remedy.
    """
    found = {version.lower(): check_percent(f"shares.{version}", share) for version, share in shares.items()}
    told = ", ".join(f"{version}={share:g}" for version, share in found.items()) or "nothing"
    if active.lower() not in found:
        raise ValueError(f"shares ({told}) leave out the active version {active}: give it a share as well.")
    if not 2 <= len(found) <= MOST_VERSIONS:
        raise ValueError(
            f"shares ({told}) name {len(found)} versions, but must name 2 to {MOST_VERSIONS}. "
            "To send all requests to the active version, run settle for the alias."
        )
    whole = sum(found.values())
    if abs(whole - 100.0) > ROUNDING or whole - found[active.lower()] >= 100.0:
        raise ValueError(f"shares ({told}) add up to {whole:g}, not to 100: change one of them.")
    canaries = sorted(found.items(), key=lambda item: names.natural(item[0]))
    return tuple((version, share) for version, share in canaries if version != active.lower())


def check_percent(field: str, value: float) -> float:
    """Return `value` if it is above 0 and at most 100. Raises `ValueError` with the `field` otherwise."""
    if isinstance(value, bool) or not math.isfinite(value) or not 0 < value <= 100:
        raise ValueError(f"{field} is {value!r}: give a percentage above 0 and at most 100.")
    return float(value)


def now() -> str:
    """Return the current time in the form of `since`: UTC to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def shares_to_json(split: TrafficSplit | None, shadow: Shadow | None) -> dict[str, dict[str, float]]:
    """Return the shares as JSON: `shares` by version, and `shadow`. Each is empty if there is none."""
    return {
        "shares": split.shares if split is not None else {},
        "shadow": {shadow.version: shadow.percent} if shadow is not None else {},
    }


def format_shares(split: TrafficSplit | None, shadow: Shadow | None) -> str:
    """Format shares in one line, such as `v1.1 90%, v1.2 10%, v1.3 shadows 5%`. Empty if nothing
    is divided.
    """
    found = [] if split is None else [f"{version} {share:g}%" for version, share in split.shares.items()]
    if shadow is not None:
        found.append(f"{shadow.version} shadows {shadow.percent:g}%")
    return ", ".join(found)
