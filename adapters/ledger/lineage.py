"""Trace an adapter back to what it was made from, as a tree over the ledger's entries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from adapters.errors import UnknownInLedgerError, format_value
from adapters.ledger.record import Entry

_PART = re.compile(r"(?:sha256:)?([0-9a-f]{8,64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """One item of a lineage: what the ledger records about it, and what it was made from."""

    role: str
    """Role of this item for the one above it: base, data, parents, teacher, config and so on. Empty at the
    top.
    """
    digest: str | None
    """Digest of this item. None if no ledger entry made anything of that name."""
    subject: str | None
    """The name in the entry that made it. None if no entry did, such as for a base or a dataset from
    outside.
    """
    makers: tuple[Entry, ...]
    """The entries that made the artifact, oldest first, such as trained and then added."""
    history: tuple[Entry, ...]
    """The other entries about the artifact: promoted, judged, retired."""
    sources: tuple[Lineage, ...]
    repeated: bool = False
    """True if the same artifact appears earlier in the tree, with its sources."""

    def to_json(self) -> dict[str, Any]:
        """Return the lineage's tree as plain JSON."""
        return {
            "role": self.role,
            "digest": self.digest,
            "subject": self.subject,
            "makers": [entry_to_json(entry) for entry in self.makers],
            "history": [entry_to_json(entry) for entry in self.history],
            "sources": [source.to_json() for source in self.sources],
            "repeated": self.repeated,
        }


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """An entry as plain JSON, with its hash."""
    return {
        "sequence": entry.sequence,
        "time": entry.time,
        **entry.record.to_json(),
        "code": dict(entry.code),
        "hash": entry.hash,
    }


def trace(entries: Sequence[Entry], wanted: str) -> Lineage:
    """Return the tree for `wanted`: a subject, a digest, or at least the first 8 digits of one digest.

    Raises `UnknownInLedgerError` if no entry is about it, or if several digests begin with these digits.
    """
    named = [entry for entry in entries if entry.record.subject.lower() == wanted.lower()]
    if not named:
        return _Tracer(entries).node("", _whole(entries, wanted), len(entries) + 1)
    made = [entry for entry in named if entry.record.outputs]
    if not made:
        return Lineage(
            role="", digest=None, subject=named[0].record.subject, makers=(), history=tuple(named), sources=()
        )
    record = made[-1].record
    digest = record.outputs.get("adapter") or next(iter(record.outputs.values()))
    # The same weights may have got other names since.
    return replace(_Tracer(entries).node("", digest, len(entries) + 1), subject=record.subject)


def _whole(entries: Sequence[Entry], wanted: str) -> str:
    match = _PART.fullmatch(wanted.lower())
    begins = f"sha256:{match[1]}" if match else ""
    every = {one for entry in entries for one in _digests(entry)}
    found = sorted(one for one in every if begins and one.startswith(begins))
    if not found:
        raise UnknownInLedgerError(f"The ledger has no entry about {format_value(wanted)}.")
    if len(found) > 1:
        raise UnknownInLedgerError(
            f"The digest {format_value(wanted)} matches {len(found)} digests in the ledger; give more "
            "digits: "
            f"{', '.join(found[:3])}."
        )
    return found[0]


def _digests(entry: Entry) -> tuple[str, ...]:
    return (*entry.record.outputs.values(), *(one for _, one in entry.record.sources))


class _Tracer:
    """Builds the tree. The sources of an artifact are always recorded before it, so there are no cycles."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._told: set[str] = set()

    def node(self, role: str, digest: str, before: int) -> Lineage:
        """Return the tree for `digest`, as known from the entries with sequence numbers below `before`."""
        makers = tuple(
            entry
            for entry in self._entries
            if entry.sequence < before and digest in entry.record.outputs.values()
        )
        subjects = {entry.record.subject.lower() for entry in makers}
        subject = makers[-1].record.subject if makers else None
        if makers and digest in self._told:
            return Lineage(
                role=role, digest=digest, subject=subject, makers=(), history=(), sources=(), repeated=True
            )
        self._told.add(digest)
        history = tuple(
            entry
            for entry in self._entries
            if entry not in makers
            and (entry.record.subject.lower() in subjects or (not role and digest in _digests(entry)))
        )
        used = {(name, one): entry.sequence for entry in makers for name, one in entry.record.sources}
        sources = tuple(self.node(name, one, bound) for (name, one), bound in used.items() if one != digest)
        return Lineage(
            role=role, digest=digest, subject=subject, makers=makers, history=history, sources=sources
        )
