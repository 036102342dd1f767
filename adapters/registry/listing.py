"""One look at the registry on disk: which versions it holds, and which of them are active or retired.

Taken without a lock, and cheap: names and manifests are read, weights are not.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from adapters import names
from adapters.errors import AdapterError, RegistryError, UnknownAdapterError
from adapters.lora.config import CONFIG_FILE
from adapters.lora.manifest import Adapter, read_fields, read_manifest
from adapters.registry.pointers import ACTIVE_FILE, AliasPointers


@dataclass(frozen=True, slots=True)
class VersionFolder:
    """One version's place, by the names it goes under."""

    alias: str
    version: str
    folder: Path

    @classmethod
    def of(cls, folder: Path) -> VersionFolder:
        """The version in registry/ALIAS/VERSION, by the names that it records, else by those of its place."""
        fields = _recorded(folder)
        alias, version = fields.get("alias"), fields.get("version")
        return cls(
            alias if isinstance(alias, str) else folder.parent.name,
            version if isinstance(version, str) else folder.name,
            folder,
        )

    @property
    def full_name(self) -> str:
        """`alias@version`."""
        return f"{self.alias}@{self.version}"

    @property
    def recorded_digest(self) -> str | None:
        """The digest that its manifest records; None where there is none. Reads no weights."""
        found: object = _recorded(self.folder).get("digest")
        return found if isinstance(found, str) else None

    @property
    def recorded_language(self) -> str | None:
        """The language that its manifest records; None where there is none."""
        found: object = _recorded(self.folder).get("language")
        return found if isinstance(found, str) else None

    def is_named(self, alias: str, version: str) -> bool:
        """Whether it is `version` of `alias`; case does not matter."""
        return (self.alias.lower(), self.version.lower()) == (alias.lower(), version.lower())

    def read(self) -> Adapter:
        """The adapter, its files hashed. Raises `AdapterError`."""
        return read_manifest(self.folder, alias=self.alias, version=self.version)


@dataclass(frozen=True)
class RegistryListing:
    """What the registry held at one moment."""

    entries: tuple[VersionFolder, ...]
    """Every version, by alias, then in natural order."""
    pointers: AliasPointers

    @classmethod
    def read(cls, registry: Path) -> RegistryListing:
        """What the folder `registry` holds. Raises `PointersError`."""
        # The state first: what was promoted after this moment is then found among the versions all the same.
        pointers = AliasPointers.read(registry)
        found = (VersionFolder.of(folder) for folder in version_folders(registry))
        order = sorted(found, key=lambda entry: (entry.alias.lower(), names.natural(entry.version)))
        return cls(tuple(order), pointers)

    def versions(self, alias: str) -> tuple[VersionFolder, ...]:
        """The versions of `alias`, in natural order; none where it is unknown."""
        return tuple(entry for entry in self.entries if entry.alias.lower() == alias.lower())

    def served_versions(self, alias: str) -> tuple[VersionFolder, ...]:
        """Those that are not retired."""
        return tuple(entry for entry in self.versions(alias) if not self.is_retired(entry))

    def is_retired(self, entry: VersionFolder) -> bool:
        """Whether it is kept and not served."""
        return self.pointers.is_retired(entry.alias, entry.version)

    def active(self, alias: str) -> VersionFolder | None:
        """What `alias` stands for: what was promoted last and is still served, else the highest that is."""
        served = self.served_versions(alias)
        for version in reversed(self.pointers.state(alias).history):
            for entry in served:
                if entry.version.lower() == version:
                    return entry
        return served[-1] if served else None

    def is_active(self, entry: VersionFolder) -> bool:
        """Whether its alias stands for it."""
        return self.active(entry.alias) == entry

    def find(self, name: str) -> VersionFolder:
        """The version that `alias@version` names, or that an alias alone stands for.

        A language such as `sv` does for the alias, where the active version of one alias alone speaks it.
        Raises `UnknownAdapterError`, and `RegistryError` for an alias whose versions are all retired.
        """
        alias, at, version = name.partition("@")
        speakers = self._speakers(alias.strip())
        spoken = speakers[0] if len(speakers) == 1 else ""
        versions = self.versions(alias.strip()) or self.versions(spoken)
        if not versions:
            raise UnknownAdapterError(name, speakers[:3] or _near(alias, self._aliases))
        if not at:
            active = self.active(versions[0].alias)
            if active is None:
                raise RegistryError(f"Every version of {versions[0].alias} is retired. Promote one of them.")
            return active
        for entry in versions:
            if entry.version.lower() == version.strip().lower():
                return entry
        hints = _near(version, [entry.version for entry in versions])
        raise UnknownAdapterError(name, [f"{versions[0].alias}@{hint}" for hint in hints])

    def _speakers(self, language: str) -> list[str]:
        """The aliases whose active version speaks `language`, sorted."""
        active = [entry for alias in self._aliases if (entry := self.active(alias)) is not None]
        found = [entry.alias for entry in active if entry.recorded_language == language.lower()]
        return list(dict.fromkeys(found))

    @cached_property
    def _aliases(self) -> list[str]:
        return sorted({entry.alias for entry in self.entries})


def _recorded(folder: Path) -> dict[str, Any]:
    """The manifest's fields; none where it is damaged, which `VersionFolder.read` and `verify` say."""
    try:
        return read_fields(folder)
    except AdapterError:
        return {}


def version_folders(registry: Path) -> list[Path]:
    """Folders `registry`/ALIAS/VERSION in PEFT layout. Those that begin with a dot are being written."""
    return [
        folder
        for alias in _folders(registry)
        for folder in _folders(alias)
        if (folder / CONFIG_FILE).is_file()
    ]


def alias_folders(registry: Path) -> list[Path]:
    """Folders `registry`/ALIAS."""
    return _folders(registry)


def fingerprint(registry: Path) -> str:
    """Text that changes when a version comes or goes, or `ACTIVE_FILE` does. Reads names and times alone."""
    seen = [str(folder.relative_to(registry)) for folder in version_folders(registry)]
    try:
        status = (registry / ACTIVE_FILE).stat()
    except FileNotFoundError:
        return "\n".join(seen)
    return "\n".join([*seen, f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"])


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.iterdir() if not path.name.startswith(".") and path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _near(name: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name.strip().lower()[:64], list(known)[:512], n=3, cutoff=0.5)
