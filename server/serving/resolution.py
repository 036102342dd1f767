"""Who answers a request, and what its receipt says of that."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from adapters.lora.manifest import Adapter
from routing.route import Route
from routing.selection import HEADER
from server.errors import UnsupportedRequestError
from server.metrics.engine_state import EngineInfo
from server.request import AdapterMix
from server.rollout.trials import ChosenVersion


@dataclass(frozen=True, slots=True)
class Resolution:
    """Who answers a request: a route whose names have become digests."""

    name: str
    """Full name, the base's name, or the blend; what `model` says in the answer."""
    base: str
    """The base's name."""
    adapter_mix: AdapterMix
    share: str
    adapter: str
    """Metric label: alias, `base` or `blend`."""
    version: str
    """Metric label."""
    route: Route
    adapters: tuple[Adapter, ...]
    fingerprint: str
    """What made the answer, shortened: the base's digest and the adapter's."""
    chosen: ChosenVersion | None = None
    """How the version was chosen, where requests for its alias are divided."""

    @property
    def digest(self) -> str:
        """The adapters' digests, in the order of the name; `none` for the base."""
        return ",".join(adapter.digest for adapter in self.adapters) or "none"

    @property
    def how(self) -> str:
        """The decision in one line, such as `detected;confidence=0.97`."""
        return f"{self.route.reason};confidence={self.route.confidence:.2f}"

    @property
    def language(self) -> str:
        """The answer's language, or `none` where that was not decided."""
        return self.route.language or "none"

    @property
    def receipt(self) -> dict[str, str]:
        """The headers that tell a client who answered, and why."""
        bases = {adapter.base_digest for adapter in self.adapters}
        checked = {"X-OneSeek-Base-Check": "unverified" if None in bases else "verified"} if bases else {}
        return {
            "X-OneSeek-Base": self.base,
            "X-OneSeek-Adapter": self.name if self.adapter_mix else "base",
            "X-OneSeek-Adapter-Digest": self.digest,
            "X-OneSeek-Language": self.language,
            "X-OneSeek-Route": self.how,
            **checked,
        }


def resolve_route(
    route: Route,
    parts: Sequence[tuple[Adapter, float]],
    info: EngineInfo,
    base_name: str,
    chosen: ChosenVersion | None = None,
) -> Resolution:
    """Whom a route means, by digest. `parts` are the adapters of its target, with their weights.

    `chosen` answers instead if requests for the alias are divided. Raises `UnsupportedRequestError` for a
    blend on an engine that makes none.
    """
    if chosen is not None:
        parts = [(chosen.adapter, 1.0)]
    plain = len(parts) == 1 and parts[0][1] == 1.0
    if parts and not plain and not info.blends:
        raise UnsupportedRequestError("This engine serves one adapter at a time, unweighted.", HEADER)
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


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
