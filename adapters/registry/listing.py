"""Read the registry on disk once: its versions, and which of them are active or retired.

Reading takes no lock and is cheap: only names and manifests are read, not weights.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from adapters import names
from adapters.errors import AdapterError, FileRefusedError, RegistryError, UnknownAdapterError
from adapters.lora.card import card_language
from adapters.lora.config import CONFIG_FILE
from adapters.lora.manifest import MANIFEST_FILE, ORIGIN, Adapter, AdapterPlace, read_fields, read_manifest
from adapters.lora.tensorfile import WEIGHTS_FILE
from adapters.registry.folders import FolderRecord
from adapters.registry.pointers import ACTIVE_FILE, AliasPointers, first_version


@dataclass(frozen=True, slots=True)
class VersionFolder:
    """The folder of one version, with its alias and version."""

    alias: str
    version: str
    folder: Path
    outside: FolderRecord | None = None
    """The record of the version's folder if it is outside the registry. None if it is inside."""

    @classmethod
    def recorded(cls, record: FolderRecord) -> VersionFolder:
        """Return the version outside the registry that `record` describes."""
        return cls(record.alias, record.version, record.path, record)

    @classmethod
    def of(cls, folder: Path) -> VersionFolder:
        """Return the version in `folder`, which is registry/ALIAS/VERSION. Alias and version come from its
        manifest, or else from the path.
        """
        fields = _recorded(folder)
        return cls(
            _checked(fields.get("alias"), names.alias) or folder.parent.name,
            _checked(fields.get("version"), names.version) or folder.name,
            folder,
        )

    @property
    def full_name(self) -> str:
        """Full name of the version: `alias@version`."""
        return f"{self.alias}@{self.version}"

    @property
    def place(self) -> AdapterPlace:
        """Kind of place that holds the version: the registry, lora_adapters, a folder in the settings, or the
        folder that ships with OneSeek.
        """
        return "registry" if self.outside is None else self.outside.place

    @property
    def where(self) -> str:
        """Describe where the version's folder is, without its full path."""
        if self.outside is None or self.outside.place == "lora_adapters":
            return f"{'registry' if self.outside is None else 'lora_adapters'}/{self.folder.name}"
        shipped = self.outside.place == "shipped"
        return "what ships with OneSeek" if shipped else f"{self.folder.name}, which the settings name"

    def may_fit(self, base: str) -> bool:
        """True if the version can be for the base with the digest `base`, as far as it records its base."""
        if self.outside is not None:
            return self.outside.fits(base)
        return _recorded(self.folder).get("base_digest") in (None, base)

    @property
    def recorded_digest(self) -> str | None:
        """The adapter's digest in the version's manifest. None if there is none. Reads no weights."""
        found: object = _recorded(self.folder).get("digest")
        return found if isinstance(found, str) else None

    @property
    def recorded_language(self) -> str | None:
        """The language in the version's manifest; None if there is none."""
        return _checked(_recorded(self.folder).get("language"), names.language)

    @property
    def language(self) -> str | None:
        """The language in the version's manifest, or else in its model card."""
        if self.outside is not None:
            return self.outside.language
        return self.recorded_language or _checked(card_language(self.folder), names.language)

    @property
    def imported(self) -> bool:
        """True if the version was converted from a file of an earlier OneSeek installation."""
        return ORIGIN in _recorded(self.folder)

    @property
    def origin(self) -> Mapping[str, Any]:
        """The manifest's record of the file that the version was converted from. Empty if it was not
        converted.
        """
        found: object = _recorded(self.folder).get(ORIGIN)
        return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}

    def is_named(self, alias: str, version: str) -> bool:
        """True if this is the given version of the given alias. Ignores case."""
        return (self.alias.lower(), self.version.lower()) == (alias.lower(), version.lower())

    def read(self) -> Adapter:
        """Read the version's adapter and hash its files. Raises `AdapterError`."""
        if not self.folder.is_dir():
            reason = "the folder is missing, but the registry has a version there"
            remedy = (
                "Restore the folder, promote another version, or remove this version with retire --delete."
            )
            if self.outside is not None:
                reason = f"the folder is missing, but {self.full_name} was served from it"
                remedy = f"Restore the folder, or promote another version of {self.alias}."
            raise AdapterError(self.folder, reason, remedy)
        self._check_names()
        language = self.outside.language if self.outside is not None else None
        try:
            found = read_manifest(self.folder, alias=self.alias, version=self.version, language=language)
        except FileRefusedError:
            raise
        except ValueError as problem:
            raise AdapterError(self.folder, str(problem), "Rename the folder.") from problem
        return replace(found, place=self.place)

    def _check_names(self) -> None:
        """Raise `AdapterError` if the manifest has another alias or version. Skipped if the settings name the
        folder.
        """
        if self.place == "settings":
            return
        fields = _recorded(self.folder)
        for field, own in (("alias", self.alias), ("version", self.version)):
            told = fields.get(field)
            if isinstance(told, str) and told.lower() != own.lower():
                reason = f"the manifest differs from {own}, the name that the version was added with"
                raise AdapterError(
                    self.folder / MANIFEST_FILE, reason, "Restore the manifest.", field=field, value=told
                )


@dataclass(frozen=True)
class RegistryListing:
    """The contents of the registry at one moment."""

    entries: tuple[VersionFolder, ...]
    """Every version, sorted by alias and then in natural order.

    Includes promoted versions whose folders are missing. Includes versions outside the registry that it has
    recorded or that the caller of `read` passes.
    """
    pointers: AliasPointers

    @classmethod
    def read(cls, registry: Path, outside: Iterable[VersionFolder] = ()) -> RegistryListing:
        """Read the folder `registry`, and add the versions in `outside`. Raises `PointersError` if the file
        of active versions is damaged.
        """
        # Read the state first: a version promoted after this moment is then still found among the versions.
        pointers = AliasPointers.read(registry)
        entries = [VersionFolder.of(folder) for folder in version_folders(registry)]
        entries += _besides(entries, [*outside, *_recorded_outside(pointers)])
        missing = list(_missing(registry, entries, pointers))
        # A pointer's name takes precedence over a changed manifest's name for the same folder.
        claimed = {entry.folder for entry in missing}
        return cls(_sorted([*(one for one in entries if one.folder not in claimed), *missing]), pointers)

    @classmethod
    def without_pointers(cls, registry: Path) -> RegistryListing:
        """Read the folder `registry` without its file of active versions, as if no version had been promoted
        or retired.
        """
        return cls(_sorted(map(VersionFolder.of, version_folders(registry))), AliasPointers())

    def versions(self, alias: str) -> tuple[VersionFolder, ...]:
        """The versions of `alias` in natural order. Empty if the alias is unknown."""
        return tuple(entry for entry in self.entries if entry.alias.lower() == alias.lower())

    def served_versions(self, alias: str) -> tuple[VersionFolder, ...]:
        """The versions of `alias` that are not retired."""
        return tuple(entry for entry in self.versions(alias) if not self.is_retired(entry))

    @property
    def served_folders(self) -> frozenset[Path]:
        """The folders of every version that is not retired."""
        return frozenset(entry.folder for entry in self.entries if not self.is_retired(entry))

    def is_retired(self, entry: VersionFolder) -> bool:
        """True if the version is retired: kept but not served."""
        return self.pointers.is_retired(entry.alias, entry.version)

    def active(self, alias: str) -> VersionFolder | None:
        """The active version of `alias`: the version promoted last that is still served, else the highest
        version in the first searched place that has versions.
        """
        return self.active_of(alias, self.served_versions(alias))

    def active_on(self, alias: str, base: str) -> VersionFolder | None:
        """The active version of `alias` among those for the base with the digest `base`."""
        return self.active_of(alias, [one for one in self.served_versions(alias) if one.may_fit(base)])

    def active_of(self, alias: str, served: Iterable[VersionFolder]) -> VersionFolder | None:
        """Return the version of `alias` that would be active if only the versions in `served` were served."""
        served = tuple(served)
        for version in reversed(self.pointers.state(alias).history):
            for entry in served:
                if entry.version.lower() == version:
                    return entry
        if not served:
            return None
        first = first_version((entry.place, entry.version) for entry in served)
        return next(entry for entry in served if entry.version.lower() == first)

    def is_named_active(self, alias: str, version: str) -> bool:
        """True if `version` is the active version of `alias`, or if the alias has no versions."""
        active = self.active(alias)
        return active is None or active.version.lower() == version.lower()

    def is_active(self, entry: VersionFolder) -> bool:
        """True if this is the active version of its alias."""
        return self.active(entry.alias) == entry

    def find(self, name: str) -> VersionFolder:
        """Return the version with the name `alias@version`. For an alias alone, return its active version.

        A language such as `sv` can replace the alias if exactly one alias has an active version in that
        language. Raises `UnknownAdapterError`, and `RegistryError` if all versions of the alias are retired.
        """
        alias, at, version = name.partition("@")
        versions, speakers = self.versions(alias.strip()), list[str]()
        if not versions:
            speakers = self._speakers(alias.strip())
            versions = self.versions(speakers[0]) if len(speakers) == 1 else ()
        if not versions:
            raise UnknownAdapterError(name, speakers[:3] or _near(alias, self._aliases))
        if not at:
            active = self.active(versions[0].alias)
            if active is None:
                raise RegistryError(
                    f"Every version of {versions[0].alias} is retired. Promote one of them: oneseek adapters "
                    f"promote {versions[0].alias}@VERSION."
                )
            return active
        for entry in versions:
            if entry.version.lower() == version.strip().lower():
                return entry
        hints = _near(version, [entry.version for entry in versions])
        raise UnknownAdapterError(name, [f"{versions[0].alias}@{hint}" for hint in hints])

    def _speakers(self, language: str) -> list[str]:
        """The aliases whose active version has the given language, sorted. If any of these versions are in
        the registry, only their aliases.
        """
        active = [entry for alias in self._aliases if (entry := self.active(alias)) is not None]
        found = [entry for entry in active if _spoken(entry) == language.lower()]
        kept = [entry for entry in found if entry.outside is None]
        return list(dict.fromkeys(entry.alias for entry in kept or found))

    @cached_property
    def _aliases(self) -> list[str]:
        return sorted({entry.alias for entry in self.entries})


def _sorted(entries: Iterable[VersionFolder]) -> tuple[VersionFolder, ...]:
    return tuple(sorted(entries, key=lambda entry: (entry.alias.lower(), names.natural(entry.version))))


def _spoken(entry: VersionFolder) -> str | None:
    return entry.recorded_language if entry.outside is None else entry.outside.language


def _besides(entries: Iterable[VersionFolder], others: Iterable[VersionFolder]) -> list[VersionFolder]:
    """Return the versions in `others` whose names do not occur in `entries`. If a name occurs twice in
    `others`, keep the first.
    """
    there = {entry.full_name.lower() for entry in entries}
    found: dict[str, VersionFolder] = {}
    for entry in others:
        if entry.full_name.lower() not in there:
            found.setdefault(entry.full_name.lower(), entry)
    return list(found.values())


def _recorded_outside(pointers: AliasPointers) -> Iterator[VersionFolder]:
    """Return the recorded versions outside the registry: active versions, and others whose folder still
    exists.
    """
    for alias, state in pointers.states.items():
        active = pointers.active(alias)
        for version, record in state.folders.items():
            if version == active or record.path.is_dir():
                yield VersionFolder.recorded(record)


def _missing(
    registry: Path, entries: Iterable[VersionFolder], pointers: AliasPointers
) -> Iterator[VersionFolder]:
    """Return the active versions whose folders are missing."""
    written = {entry.alias.lower(): entry.alias for entry in entries}
    there = {(entry.alias.lower(), entry.version.lower()) for entry in entries}
    for alias, state in pointers.states.items():
        active = pointers.active(alias)
        if active is not None and active not in state.retired and (alias, active) not in there:
            shown = written.get(alias, alias)
            yield VersionFolder(shown, active, registry / shown / active)


def _checked(value: object, check: Callable[[str], str]) -> str | None:
    """Return `value` if `check` accepts it, else None."""
    if not isinstance(value, str):
        return None
    try:
        return check(value)
    except ValueError:
        return None


def _recorded(folder: Path) -> dict[str, Any]:
    """Return the fields of the manifest in `folder`. Empty if it is damaged, which `VersionFolder.read`
    reports.
    """
    try:
        return read_fields(folder)
    except AdapterError:
        return {}


def version_folders(registry: Path) -> list[Path]:
    """List the folders `registry`/ALIAS/VERSION that hold a version, intact or damaged.

    Folders that begin with a dot are skipped: they are still being written.
    """
    return [
        folder for alias in _folders(registry) for folder in _folders(alias) if _is_version_folder(folder)
    ]


def _is_version_folder(folder: Path) -> bool:
    if any(os.path.lexists(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE)):
        return True
    return _checked(folder.name, names.version) is not None


def alias_folders(registry: Path) -> list[Path]:
    """List the folders of all aliases in `registry`."""
    return _folders(registry)


def fingerprint(registry: Path) -> str:
    """Return text that changes when a version in the registry or its file of active versions changes. Reads
    no file's contents.
    """
    seen = [f"{folder.relative_to(registry)} {stamp(folder)}" for folder in version_folders(registry)]
    return "\n".join([*seen, _times(registry / ACTIVE_FILE)])


def stamp(folder: Path) -> str:
    """Return text that changes when a file of the version in `folder` changes, or its permissions.

    File times are compared only for equality, so a clock that was set back hides no change.
    """
    return " ".join(_times(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE))


def _times(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as problem:
        return f"-{problem.errno}"
    return f"{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_size}:{status.st_ino}:{status.st_mode:o}"


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.iterdir() if not path.name.startswith(".") and path.is_dir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _near(name: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name.strip().lower()[:64], list(known)[:512], n=3, cutoff=0.5)
