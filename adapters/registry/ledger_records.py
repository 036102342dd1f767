"""What the ledger is told of a change to the registry."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from adapters.ledger import Record
from adapters.lora.manifest import Adapter
from adapters.registry.intake import CheckedAdapter
from adapters.registry.listing import VersionFolder
from adapters.registry.pointers import AliasState

_LARGEST = 2**53
_LONGEST = 2000
"""Characters of a reason that are kept."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def addition(
    intake: CheckedAdapter,
    action: str,
    sources: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | None = None,
) -> Record:
    """A version came, from what its manifest and `sources` name by digest; `action` says how."""
    manifest, adapter = intake.manifest, intake.source
    origin: Mapping[str, Any] = manifest.get("origin") or {}
    parents, metrics = manifest.get("parents"), manifest.get("metrics")
    found: dict[str, object] = {
        "base": intake.base.digest,
        "source": origin.get("digest"),
        "data": manifest.get("dataset_digest"),
    }
    inputs: dict[str, str | tuple[str, ...]] = {
        role: digest
        for role, digest in found.items()
        if isinstance(digest, str) and _DIGEST.fullmatch(digest)
    }
    if isinstance(parents, list):
        inputs["parents"] = tuple(str(parent) for parent in parents if _DIGEST.fullmatch(str(parent)))
    return Record(
        action=action,
        subject=adapter.full_name,
        inputs={**inputs, **(sources or {})},
        outputs={"adapter": adapter.digest},
        metrics=_numbers(metrics if isinstance(metrics, dict) else {}),
        details={**({"file": str(origin["file"])} if "file" in origin else {}), **(details or {})},
    )


def move(
    action: str,
    before: VersionFolder | None,
    after: VersionFolder,
    adapter: Adapter,
    ended: Mapping[str, Any] | None = None,
) -> Record:
    """An alias stands for `after`, which was read as `adapter`, and no longer for `before`.

    `ended` is what divided its requests until now, as `division_to_json` tells it.
    """
    was = {"before": before.full_name} if before is not None else {}
    return Record(
        action=action,
        subject=after.full_name,
        outputs={"adapter": adapter.digest},
        details={**was, **({"ended": dict(ended)} if ended else {})},
    )


def division(
    action: str,
    subject: str,
    adapters: Iterable[Adapter] = (),
    *,
    now: Mapping[str, Any],
    before: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
    reason: str = "",
) -> Record:
    """The requests for an alias are divided as `now` says between `adapters`, and were as `before` says."""
    told = {"now": dict(now), "before": dict(before), "reason": reason[:_LONGEST]}
    digests = tuple(adapter.digest for adapter in adapters)
    return Record(
        action=action,
        subject=subject,
        inputs={"adapters": digests} if digests else {},
        metrics=_numbers(metrics or {}),
        details={name: value for name, value in told.items() if value},
    )


def division_to_json(state: AliasState) -> dict[str, Any]:
    """How a line divides its alias's requests, as plain JSON; empty where it does not."""
    found: dict[str, Any] = {}
    if state.split is not None:
        found["shares"] = state.split.shares
    if state.shadow is not None:
        found["shadow"] = {state.shadow.version: state.shadow.percent}
    return found


def removal(action: str, entry: VersionFolder) -> Record:
    """A version is served no longer, or its files are gone."""
    digest = entry.recorded_digest or ""
    return Record(
        action=action,
        subject=entry.full_name,
        inputs={"adapter": digest} if _DIGEST.fullmatch(digest) else {},
    )


def _numbers(metrics: Mapping[Any, object]) -> dict[str, float]:
    found = {str(name): value for name, value in metrics.items() if isinstance(value, int | float)}
    return {
        name: value
        for name, value in found.items()
        if not isinstance(value, bool) and abs(value) < _LARGEST and math.isfinite(value)
    }
