"""Import a .pth file of an older OneSeek installation: convert it in a child process, and add the result to
the registry as a version.
"""

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
    """The result of importing one file: the new version in the registry, and warnings about the file."""

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
    """Convert the .pth file `file`, and add the adapter to `registry` as a version. Names that are not given
    are taken from the file.

    `sources` (role to digest) and `details` are written to the ledger entry. Raises the errors of
    `convert_file` and `Registry.add`; after an error nothing has changed.
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
