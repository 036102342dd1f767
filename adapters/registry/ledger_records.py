"""Build the ledger's records of changes to the registry."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from adapters.errors import AdapterError
from adapters.ledger import Record
from adapters.ledger.record import MAX_RECORD_BYTES
from adapters.ledger.seal import canonical_bytes
from adapters.lora.manifest import Adapter
from adapters.registry.intake import CheckedAdapter
from adapters.registry.listing import VersionFolder
from adapters.registry.pointers import AliasState

_LARGEST = 2**53
_SHORTEN = "Shorten the metrics, parents and origin in the adapter's oneseek.json."
_LONGEST = 2000
"""Maximum number of characters of a reason that are recorded."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def addition(
    intake: CheckedAdapter,
    action: str,
    sources: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | None = None,
) -> Record:
    """Record a new version, and the digests that its manifest and `sources` name. `action` says how it was
    made.

    Raises `AdapterError` if its notes do not fit into the ledger.
    """
    manifest, adapter = intake.manifest, intake.source
    told, parents, metrics = manifest.get("origin"), manifest.get("parents"), manifest.get("metrics")
    origin: Mapping[str, Any] = told if isinstance(told, dict) else {}
    notes: dict[str, Any] = {"file": str(origin["file"])[:_LONGEST]} if "file" in origin else {}
    if adapter.language is not None:
        notes["language"] = adapter.language
    if not intake.base_recorded:
        notes["base"] = "unverified"
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
    try:
        record = Record(
            action=action,
            subject=adapter.full_name,
            inputs={**inputs, **(sources or {})},
            outputs={"adapter": adapter.digest},
            metrics=_numbers(metrics if isinstance(metrics, dict) else {}),
            details={**notes, **(details or {})},
        )
        size = len(canonical_bytes(record.to_json()))
    except ValueError as problem:
        raise AdapterError(
            adapter.path, f"the adapter cannot be recorded in the ledger ({problem})", _SHORTEN
        ) from None
    if size > MAX_RECORD_BYTES:
        raise AdapterError(
            adapter.path,
            f"the adapter's notes have {size} bytes; a ledger entry holds at most {MAX_RECORD_BYTES}",
            _SHORTEN,
        )
    return record


def move(
    action: str,
    before: VersionFolder | None,
    after: VersionFolder,
    adapter: Adapter,
    ended: Mapping[str, Any] | None = None,
) -> Record:
    """Record that an alias's active version changes from `before` to `after`, whose files are `adapter`.

    `ended` says how its requests were divided between versions until now, as `division_to_json` returns it.
    """
    was = {"before": before.full_name} if before is not None else {}
    return Record(
        action=action,
        subject=after.full_name,
        outputs={"adapter": adapter.digest},
        details={**was, **({"ended": dict(ended)} if ended else {}), **folders_of(before, after)},
    )


def folders_of(*entries: VersionFolder | None) -> dict[str, Any]:
    """Return the folders of those of `entries` that are outside the registry, as details of a record."""
    found = [entry.outside.to_json() for entry in entries if entry is not None and entry.outside is not None]
    return {"folders": found} if found else {}


def division(
    action: str,
    subject: str,
    adapters: Iterable[Adapter] = (),
    *,
    now: Mapping[str, Any],
    before: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
    reason: str = "",
    standing: Mapping[str, Any] | None = None,
) -> Record:
    """Record how the requests for an alias are divided between `adapters`: `now` from now on, `before` until
    now.

    `standing` is the folder of its active version, as `folders_of` returns it.
    """
    told = {"now": dict(now), "before": dict(before), "reason": reason[:_LONGEST], **(standing or {})}
    digests = tuple(adapter.digest for adapter in adapters)
    return Record(
        action=action,
        subject=subject,
        inputs={"adapters": digests} if digests else {},
        metrics=_numbers(metrics or {}),
        details={name: value for name, value in told.items() if value},
    )


def division_to_json(state: AliasState) -> dict[str, Any]:
    """Return how the requests for an alias are divided, as plain JSON. Empty if they are not."""
    found: dict[str, Any] = {}
    if state.split is not None:
        found["shares"] = state.split.shares
    if state.shadow is not None:
        found["shadow"] = {state.shadow.version: state.shadow.percent}
    return found


def standing_of(before: VersionFolder | None, adapter: Adapter) -> dict[str, Any]:
    """Return what to record of the version that stays active for an alias when another version is added."""
    if before is None or before.is_named(adapter.alias, adapter.version):
        return {}
    return {"active": before.full_name, **folders_of(before)}


def removal(action: str, entry: VersionFolder) -> Record:
    """Record that a version is retired, or that its files were deleted."""
    digest = entry.recorded_digest or ""
    return Record(
        action=action,
        subject=entry.full_name,
        inputs={"adapter": digest} if _DIGEST.fullmatch(digest) else {},
        details=folders_of(entry),
    )


def _numbers(metrics: Mapping[Any, object]) -> dict[str, float]:
    found = {str(name): value for name, value in metrics.items() if isinstance(value, int | float)}
    return {
        name: value
        for name, value in found.items()
        if not isinstance(value, bool) and abs(value) < _LARGEST and math.isfinite(value)
    }
