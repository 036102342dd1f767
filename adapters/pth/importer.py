"""A .pth of an existing installation becomes a version: converted elsewhere, then added as any adapter is."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.pth.conversion import Limits, convert
from adapters.registry.intake import Base
from adapters.registry.store import Added, Store


@dataclass(frozen=True, slots=True)
class Imported:
    """The version, and what its maker should know."""

    added: Added
    warnings: Sequence[str]


def import_pickle(
    store: Store,
    file: Path,
    *,
    base: Base,
    alias: str | None = None,
    version: str | None = None,
    language: str | None = None,
    alpha: float | None = None,
    limits: Limits | None = None,
) -> Imported:
    """Convert the .pth at `file` and add it to `store`; names that are not passed come from the file's.

    Raises as `conversion.convert` and `Store.add` do; then nothing has changed.
    """
    with tempfile.TemporaryDirectory(prefix="oneseek-import-") as place:
        found = convert(file, Path(place) / "adapter", alpha=alpha, limits=limits)
        told = found.name.version if found.tells_version else None
        added = store.add(
            found.folder,
            base=base,
            alias=alias or found.name.alias,
            version=version or told,
            language=language or found.name.language,
            notes=found.notes,
            action="import",
        )
    return Imported(added, found.warnings)
