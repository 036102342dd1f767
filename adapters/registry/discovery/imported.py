"""Recognise pickles of an earlier OneSeek installation that were imported already, so that users are not told
to import them again.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from adapters.errors import BaseModelError
from adapters.lora.digest import file_digest
from adapters.registry.listing import VersionFolder


class ImportedFiles:
    """The pickles that the registry's versions were converted from, by file name and digest."""

    def __init__(self, entries: Iterable[VersionFolder]) -> None:
        self._entries: dict[tuple[str, str], VersionFolder] = {}
        for entry in entries:
            origin = entry.origin
            name, digest = origin.get("file"), origin.get("digest")
            if isinstance(name, str) and isinstance(digest, str):
                self._entries.setdefault((name, digest), entry)
        self._names = {name for name, _ in self._entries}

    def version_of(self, file: Path, cache: Path | None = None) -> VersionFolder | None:
        """Return the version that was converted from `file`. None if there is none, or if the file cannot be
        read.

        The file is hashed only if a file of the same name was converted. `cache` is passed on to
        `file_digest`.
        """
        if file.name not in self._names:
            return None
        try:
            return self._entries.get((file.name, f"sha256:{file_digest(file, cache)}"))
        except BaseModelError:
            return None
