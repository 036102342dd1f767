"""Divide the requests for one alias between its versions: canary percentages and a shadow. Pure functions, no
files.

A conversation stays with its version as long as that version's percentage does not shrink. Each canary maps
the conversation to a number from 0 to 1, and answers it if the number is below the canary's share. So a
larger share includes every conversation of a smaller one. The numbers depend on names only, so every server
divides alike.
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
"""Tolerance, in percent, of the check that shares add up to 100. It allows three times 33.33, for example."""
_POINTS = 2.0**64
_TOLD = 4096
"""Maximum number of characters of each text that are used to identify a conversation."""


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """Division of an alias's requests between its active version and its canaries. Versions are in lower
    case.
    """

    active: str
    """The active version, which gets all requests that no canary gets."""
    canaries: tuple[tuple[str, float], ...]
    """Version and percentage of each canary, sorted by version. Never includes the active version."""
    since: str
    """Time when this split was set, which also identifies it."""
    ended: frozenset[str] = frozenset()
    """Versions of canaries that this server has ended: the active version answers their requests."""

    @property
    def shares(self) -> dict[str, float]:
        """Maps each version to its percentage of the requests, the active version first."""
        canaries = {version: percent for version, percent in self.canaries if version not in self.ended}
        return {self.active: round(100.0 - sum(canaries.values()), 6), **canaries}

    def version(self, alias: str, conversation: bytes) -> str:
        """Return the version that answers `conversation`. A canary whose share grows keeps its conversations.

        Each canary gets its part of the conversations that earlier canaries leave.
        """
        left = 100.0
        for version, percent in self.canaries:
            if point(alias, version, conversation) * left < percent:
                return self.active if version in self.ended else version
            left -= percent
        return self.active


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that also answers part of an alias's requests. Its answers are measured, but clients never
    see them.
    """

    version: str
    """The version of the alias that is the shadow, in lower case."""
    percent: float
    since: str
    """Time when this shadow was set, which also identifies it."""

    def takes(self, alias: str, conversation: bytes) -> bool:
        """True if the shadow also answers this conversation."""
        return point(alias, f"{self.version} shadow", conversation) * 100.0 < self.percent


def conversation_key(parts: Iterable[str]) -> bytes:
    """Return 32 bytes that identify a conversation. `parts` are the texts that all its requests have in
    common.
    """
    told = "\0".join(part[:_TOLD] for part in parts)
    return blake2b(told.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def point(alias: str, salt: str, conversation: bytes) -> float:
    """Map a conversation to a number from 0 up to 1, using BLAKE2b (RFC 7693) keyed with `alias` and `salt`.

    Another salt, such as another version's name, gives an independent number.
    """
    return int.from_bytes(blake2b(conversation, digest_size=8, key=_key(alias, salt)).digest()) / _POINTS


@lru_cache(1024)
def _key(alias: str, salt: str) -> bytes:
    return blake2b(f"{alias.lower()} {salt}".encode(), digest_size=32).digest()


def check_shares(shares: Mapping[str, float], active: str) -> tuple[tuple[str, float], ...]:
    """Return the canaries in `shares` (percentage by version). `shares` must include `active` and add up to
    100.

    Raises `ValueError` with the field, the value and the remedy.
    """
    found = {version.lower(): check_percent(f"shares.{version}", share) for version, share in shares.items()}
    told = ", ".join(f"{version}={share:g}" for version, share in found.items()) or "nothing"
    if active.lower() not in found:
        raise ValueError(
            f"shares ({told}) leave out the active version {active}: give that version a percentage too."
        )
    if not 2 <= len(found) <= MOST_VERSIONS:
        problem = f"name {len(found)} versions, not 2 to {MOST_VERSIONS}"
        raise ValueError(f"shares ({told}) {problem}. To end a canary, run settle for the alias.")
    whole = sum(found.values())
    if abs(whole - 100.0) > ROUNDING or whole - found[active.lower()] >= 100.0:
        raise ValueError(f"shares ({told}) add up to {whole:g}, not to 100: correct the percentages.")
    canaries = sorted(found.items(), key=lambda item: names.natural(item[0]))
    return tuple((version, share) for version, share in canaries if version != active.lower())


def check_percent(field: str, value: float) -> float:
    """Return `value` if it is above 0 and at most 100. Raises `ValueError` that names the `field`
    otherwise.
    """
    if isinstance(value, bool) or not math.isfinite(value) or not 0 < value <= 100:
        raise ValueError(f"{field} is {value!r}: give a percentage above 0 and at most 100.")
    return float(value)


def now() -> str:
    """Return the current time as the field `since` stores it: UTC to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def shares_to_json(split: TrafficSplit | None, shadow: Shadow | None) -> dict[str, dict[str, float]]:
    """Return the division of requests as JSON: `shares` by version, and `shadow`. Each is empty if there is
    none.
    """
    return {
        "shares": split.shares if split is not None else {},
        "shadow": {shadow.version: shadow.percent} if shadow is not None else {},
    }


def format_shares(split: TrafficSplit | None, shadow: Shadow | None) -> str:
    """Format the division of requests in one line, such as `v1.1 90%, v1.2 10%, v1.3 shadows 5%`. Empty if
    all go to the active version.
    """
    found = [] if split is None else [f"{version} {share:g}%" for version, share in split.shares.items()]
    if shadow is not None:
        found.append(f"{shadow.version} shadows {shadow.percent:g}%")
    return ", ".join(found)
