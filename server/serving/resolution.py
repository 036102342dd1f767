"""Resolves the adapter that answers a request to its digest, for the engine and the receipt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from adapters.lora.manifest import Adapter
from routing.route import Reason, Route
from routing.selection import HEADER
from server.errors import UnsupportedRequestError
from server.metrics.engine_state import EngineInfo
from server.request import AdapterMix
from server.rollout.trials import ChosenVersion

MOST_LISTED = 32
"""Maximum number of prompts for which a header lists the adapter of each prompt; with more prompts, it lists
each adapter once.
"""


@dataclass(frozen=True, slots=True)
class Resolution:
    """A route (the router's choice) whose adapter names are resolved to digests."""

    name: str
    """Full name of the adapter, name of the base, or the blend; the answer's `model` has this name."""
    base: str
    """Name of the base model."""
    adapter_mix: AdapterMix
    share: str
    adapter: str
    """Metric label: alias, `base` or `blend`."""
    version: str
    """Metric label: version of the adapter."""
    route: Route
    adapters: tuple[Adapter, ...]
    fingerprint: str
    """Shortened digests of the base and the adapter that answer, for `system_fingerprint`."""
    chosen: ChosenVersion | None = None
    """The version that was chosen and why, if the requests for its alias are divided between versions."""
    parts: tuple[Resolution, ...] = ()
    """Resolution of each prompt, in order, if a request has several prompts for different adapters."""

    @property
    def digest(self) -> str:
        """Digests of the adapters, in the order of `name` and separated by commas; `none` for the base."""
        if self.parts:
            return _listed([part.digest for part in self.parts])
        return ",".join(adapter.digest for adapter in self.adapters) or "none"

    @property
    def how(self) -> str:
        """The routing decision in one line, such as `detected;confidence=0.97`."""
        if self.parts:
            return _listed([part.how for part in self.parts])
        return f"{self.route.reason};confidence={self.route.confidence:.2f}"

    @property
    def language(self) -> str:
        """Language that the router decided on, or `none` if it decided on no language."""
        if self.parts:
            return _listed([part.language for part in self.parts])
        return self.route.language or "none"

    @property
    def public_name(self) -> str:
        """Value of the header `X-OneSeek-Adapter`: full name, blend or `base`, for each prompt in order."""
        if self.parts:
            return _listed([part.public_name for part in self.parts])
        return self.name if self.adapter_mix else "base"

    @property
    def receipt(self) -> dict[str, str]:
        """The receipt as response headers: which adapter answered, and why."""
        bases = {adapter.base_digest for adapter in self.adapters}
        checked = {"X-OneSeek-Base-Check": "unverified" if None in bases else "verified"} if bases else {}
        return {
            "X-OneSeek-Base": self.base,
            "X-OneSeek-Adapter": self.public_name,
            "X-OneSeek-Adapter-Digest": self.digest,
            "X-OneSeek-Language": self.language,
            "X-OneSeek-Route": self.how,
            **checked,
        }


def join_resolutions(parts: Sequence[Resolution]) -> Resolution:
    """Join the resolutions of several prompts on one base into one resolution that describes each prompt, in
    order.
    """
    adapters = tuple(dict.fromkeys(adapter for part in parts for adapter in part.adapters))
    mixes = sorted({part.adapter_mix for part in parts})
    mark = hashlib.sha256(repr(mixes).encode()).hexdigest()[:12]
    base = parts[0].fingerprint.rpartition("_")[0]
    return replace(
        parts[0],
        name=_listed([part.name for part in parts]),
        version="",
        adapters=adapters,
        fingerprint=f"{base}_{mark}",
        chosen=None,
        parts=tuple(parts),
    )


def _listed(items: Sequence[str]) -> str:
    """Join `items`, one for each prompt, with commas. If there are many prompts, each different item appears
    once.
    """
    return ", ".join(items if len(items) <= MOST_LISTED else dict.fromkeys(items))


def resolve_route(
    route: Route,
    parts: Sequence[tuple[Adapter, float]],
    info: EngineInfo,
    base_name: str,
    chosen: ChosenVersion | None = None,
) -> Resolution:
    """Resolve a route to digests. `parts` are the adapters of the route's target, with their weights.

    `chosen` answers instead if the alias's requests are divided between versions. Raises
    `UnsupportedRequestError` for a blend on an engine that does not support blends.
    """
    if chosen is not None:
        parts = [(chosen.adapter, 1.0)]
    plain = len(parts) == 1 and parts[0][1] == 1.0
    if parts and not plain and not info.blends:
        raise UnsupportedRequestError(
            "This engine does not support blends of adapters. Name a single adapter without a weight.", HEADER
        )
    weights: dict[str, float] = {}
    for adapter, weight in parts:
        weights[adapter.digest] = weights.get(adapter.digest, 0.0) + weight
    adapter_mix = tuple(sorted(weights.items()))
    adapters = tuple(adapter for adapter, _ in parts)
    if not parts:
        name, adapter, version, mark = base_name, "base", "", "base"
    elif plain:
        only = adapters[0]
        name, adapter, version, mark = only.full_name, only.alias, only.version, _short(only.digest)
    else:
        name = ",".join(f"{adapter.full_name}={weight:g}" for adapter, weight in parts)
        adapter, version, mark = "blend", "", hashlib.sha256(repr(adapter_mix).encode()).hexdigest()[:12]
    return Resolution(
        name=name,
        base=base_name,
        adapter_mix=adapter_mix,
        share=max(adapter_mix, key=lambda part: abs(part[1]))[0] if adapter_mix else "",
        adapter=adapter,
        version=version,
        route=route,
        adapters=adapters,
        fingerprint=f"fp_{_short(info.base_digest)}_{mark}",
        chosen=chosen,
    )


def resolve_base(info: EngineInfo, base_name: str) -> Resolution:
    """Return the resolution to the base without adapters, for requests that are not routed."""
    route = Route(target=(), language=None, confidence=0.0, reason=Reason.DEFAULT, detection=None)
    return resolve_route(route, (), info, base_name)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
