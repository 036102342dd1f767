"""What is checked before an adapter becomes a version, and what is then written beside its weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters import names
from adapters.bases import FoundBase
from adapters.errors import AdapterError
from adapters.lora.card import write_card
from adapters.lora.config import CONFIG_FILE
from adapters.lora.digest import adapter_digest, base_digest
from adapters.lora.manifest import MANIFEST_FILE, Adapter, read_fields, read_manifest
from adapters.lora.shape_check import MAX_RANK, ModelShape
from adapters.lora.tensorfile import WEIGHTS_FILE
from adapters.lora.weights import read_adapter

_CARRIED = ("about", "created", "dataset", "dataset_digest", "metrics", "origin", "parents", "rows")
"""Fields of a source's `oneseek.json` that its version keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The base that versions are checked against."""

    name: str
    digest: str
    shape: ModelShape

    @classmethod
    def read(cls, found: FoundBase, cache: Path | None = None) -> Base:
        """Hashes the base, with a `cache` as `base_digest` takes it. Raises `BaseModelError`."""
        digest = base_digest(found.path, cache)
        return cls(name=found.name, digest=digest, shape=ModelShape.read(found.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedAdapter:
    """A checked adapter that is not a version yet."""

    source: Adapter
    base: Base
    given_version: str | None
    """What the caller, its oneseek.json or its folder's name says; None where a free one may be taken."""
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What its oneseek.json notes beyond what is read from the files."""

    def with_version(self, version: str) -> CheckedAdapter:
        """The same under `version`."""
        return replace(self, source=replace(self.source, version=version))

    def write(self, folder: Path) -> None:
        """Fill the empty `folder` with the version.

        Raises `AdapterError` where the source is no longer what was checked.
        """
        source = self.source.path
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            shutil.copyfile(source / name, folder / name)
        if adapter_digest(folder) != self.source.digest:
            raise AdapterError(
                source, "changed while it was read", "Wait until it is written, then try again."
            )
        text = json.dumps(self.manifest, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / MANIFEST_FILE).write_text(f"{text}\n", encoding="utf-8", newline="\n")
        write_card(folder, self.source, self.base.name, self.manifest, source)

    @property
    def manifest(self) -> dict[str, Any]:
        """The fields of the version's oneseek.json."""
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
    """The adapter in `folder`, every number of it read and checked for `base`.

    `notes` are fields of oneseek.json that go before those of the source. Raises `AdapterError` where it is
    for another base, does not fit, holds NaN, exceeds `max_rank` or changes nothing; `ValueError` where a
    name that is passed is none.
    """
    adapter = read_manifest(folder, alias=alias, version=version, language=language)
    recorded = read_fields(folder)
    if adapter.base_digest not in (None, base.digest):
        reason = f"it was made for another base than {base.name}, which is {base.digest}"
        remedy = "Name its own base with --base-model, or train it again for this one."
        raise AdapterError(
            folder / MANIFEST_FILE, reason, remedy, field="base_digest", value=adapter.base_digest
        )
    read_adapter(folder, base.shape, max_rank, digest=adapter.digest)
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
    )
