"""Check an adapter before it becomes a version, and write its manifest beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters import names
from adapters.bases import FoundBase
from adapters.errors import AdapterError, RegistryError
from adapters.files.regular import copy_regular
from adapters.lora.base_name import base_names, check_base_name
from adapters.lora.card import write_card
from adapters.lora.config import CONFIG_FILE, misplaced
from adapters.lora.digest import adapter_digest, base_digest
from adapters.lora.manifest import MANIFEST_FILE, Adapter, read_base_digest, read_fields, read_manifest
from adapters.lora.shape_check import MAX_RANK, ModelShape, check_fit
from adapters.lora.tensorfile import WEIGHTS_FILE
from adapters.lora.weights import read_adapter
from adapters.pickles import refuse_pickle
from adapters.registry.listing import VersionFolder

_WAIT = "Wait until the program that writes the adapter has finished, then try again."
_CARRIED = ("about", "created", "dataset", "dataset_digest", "metrics", "origin", "parents", "rows")
"""Fields of a source's `oneseek.json` that its version keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The base that versions are checked against."""

    name: str
    digest: str
    shape: ModelShape
    names: tuple[str, ...] = ()
    """Further names of the base, for adapters that record no digest of their base."""

    @classmethod
    def read(cls, found: FoundBase, cache: Path | None = None) -> Base:
        """Read and hash the base. `cache` is used as in `base_digest`. Raises `BaseModelError`."""
        digest = base_digest(found.path, cache)
        return cls(
            name=found.name,
            digest=digest,
            shape=ModelShape.read(found.path),
            names=base_names(found.path, found.name),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedAdapter:
    """A checked adapter that is not a version yet."""

    source: Adapter
    base: Base
    given_version: str | None
    """The version that the caller, its oneseek.json or its folder's name gives. None: use a free one."""
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields for its oneseek.json beyond those read from the files."""
    base_recorded: bool = True
    """False if only the adapter's shapes show that it is for this base."""

    def with_version(self, version: str) -> CheckedAdapter:
        """Return the adapter with `version` as its version."""
        return replace(self, source=replace(self.source, version=version))

    def write(self, folder: Path) -> None:
        """Write the version into the empty `folder`.

        Raises `AdapterError` if the source has changed since it was checked, or the version cannot be read
        back.
        """
        source = self.source.path
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            copy_regular(source / name, folder / name)
        if adapter_digest(folder) != self.source.digest:
            raise AdapterError(source, "the adapter changed while it was read", _WAIT)
        text = json.dumps(self.manifest, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / MANIFEST_FILE).write_text(f"{text}\n", encoding="utf-8", newline="\n")
        write_card(folder, self.source, self.base.name, self.manifest, source)
        _check_readable(folder, self.source)

    @property
    def manifest(self) -> dict[str, Any]:
        """Return the fields of the version's oneseek.json."""
        adapter = self.source
        found: dict[str, Any] = {
            "alias": adapter.alias,
            "version": adapter.version,
            "language": adapter.language,
            "base": self.base.name,
            "base_digest": self.base.digest,
            "digest": adapter.digest,
            "rank": adapter.rank,
            "alpha": adapter.alpha,
            "targets": list(adapter.targets),
            **self.fields,
        }
        return {name: value for name, value in found.items() if value is not None}


def check_adapter(
    folder: Path,
    base: Base,
    *,
    alias: str | None = None,
    version: str | None = None,
    language: str | None = None,
    notes: Mapping[str, Any] | None = None,
    max_rank: int = MAX_RANK,
) -> CheckedAdapter:
    """Check the adapter in `folder` for `base`, including every number of its weights.

    `notes` are fields of oneseek.json that override the source's. Raises `AdapterError` if it is for another
    base, does not fit, holds NaN, exceeds `max_rank` or changes nothing. Raises `ValueError` if a given name
    is invalid.
    """
    if not (folder / CONFIG_FILE).exists():
        refuse_pickle(folder)
    if (elsewhere := misplaced(folder)) is not None:
        raise elsewhere
    recorded = read_fields(folder)
    _check_base(folder, base, read_base_digest(folder, recorded))
    # Before the files are hashed, so that a large one which does not fit costs its header alone.
    check_fit(folder, base.shape, max_rank)
    adapter = read_manifest(folder, alias=alias, version=version, language=language)
    read_adapter(folder, base.shape, max_rank, digest=adapter.digest)
    named = adapter.base_digest is not None
    told = (
        version is not None
        or "version" in recorded
        or names.tells_version(names.folder_title(folder.resolve()))
    )
    kept = {name: recorded[name] for name in _CARRIED if name in recorded}
    created = {"created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    return CheckedAdapter(
        source=replace(adapter, base_digest=base.digest),
        base=base,
        given_version=adapter.version if told else None,
        fields={**created, **kept, **(notes or {})},
        base_recorded=named,
    )


def _check_base(folder: Path, base: Base, recorded: str | None) -> None:
    """Refuse an adapter that records another base. Without a record, refuse one that names a base of another
    family.
    """
    if recorded is None:
        check_base_name(folder, base.names or (base.name,))
    elif recorded != base.digest:
        raise AdapterError(
            folder / MANIFEST_FILE,
            f"the adapter was made for another base; this base is {base.name}, {base.digest}",
            "Name the adapter's own base with --base-model, or train the adapter again for this base.",
            field="base_digest",
            value=recorded,
        )


def _check_readable(folder: Path, wanted: Adapter) -> None:
    """Refuse a version that would read back differently from what was checked."""
    try:
        found = read_manifest(folder)
    except AdapterError as problem:
        raise AdapterError(
            wanted.path,
            f"the new version could not be read back: {problem.path.name}: {problem.reason}",
            "Shorten or correct the adapter's oneseek.json.",
        ) from problem
    if (found.full_name, found.digest, found.language) != (wanted.full_name, wanted.digest, wanted.language):
        raise AdapterError(wanted.path, "the adapter changed while it was read", _WAIT)


def version_for(intake: CheckedAdapter, versions: tuple[VersionFolder, ...]) -> str:
    """Return the version that holds exactly these contents, or else the next free one."""
    known = (entry.version for entry in versions if entry.recorded_digest == intake.source.digest)
    return next(known, None) or names.next_version(entry.version for entry in versions)


def same_version(
    entry: VersionFolder, intake: CheckedAdapter, versions: tuple[VersionFolder, ...]
) -> Adapter:
    """Return the existing version if it equals the one to add. Raises `RegistryError` if it differs."""
    present, wanted = entry.read(), intake.source
    free = names.next_version(entry.version for entry in versions)
    where = "exists" if entry.outside is None else f"is served from {entry.where}"
    if present.digest != wanted.digest:
        raise RegistryError(
            f"{entry.full_name} {where} and holds {present.digest}; {wanted.path} holds {wanted.digest}. "
            f"A version never changes: add it as --version {free}."
        )
    if entry.outside is not None:
        return present
    if wanted.language not in (None, present.language):
        raise RegistryError(
            f"{entry.full_name} already exists with the language {present.language}, not {wanted.language}. "
            f"A version never changes: add it as --version {free}."
        )
    return present
