"""Import a .pth of an existing installation as a version: convert it in another process, then add it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.pth.conversion import ConversionLimits, convert_file
from adapters.registry.intake import Base
from adapters.registry.registry import AddResult, Registry


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The new version, and warnings for its author."""

    added: AddResult
    warnings: Sequence[str]


def import_pickle(
    registry: Registry,
    file: Path,
    *,
    base: Base,
    alias: str | None = None,
    version: str | None = None,
    language: str | None = None,
    alpha: float | None = None,
    limits: ConversionLimits | None = None,
    sources: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | None = None,
) -> ImportResult:
    """Convert the .pth at `file` and add it to `registry`. Names that you do not pass come from the file's
    name.

    `sources` (by digest) and `details` go to the ledger. Raises as `conversion.convert_file` and
    `Registry.add` do; then nothing has changed.
    """
    with tempfile.TemporaryDirectory(prefix="oneseek-import-") as place:
        found = convert_file(file, Path(place) / "adapter", alpha=alpha, limits=limits)
        told = found.name.version if found.tells_version else None
        added = registry.add(
            found.folder,
            base=base,
            alias=alias or found.name.alias,
            version=version or told,
            language=language or found.name.language,
            notes=found.notes,
            action="import",
            sources=sources,
            details=details,
        )
    return ImportResult(added, found.warnings)
