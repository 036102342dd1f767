"""Where bases and adapters are found, in the order that existing installations use.

Only the places named here and those that the settings name are looked at. A found path must, with every link
followed, stay inside the place it was found in; what leads out of it has to be named in the settings.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters import names
from adapters.bases import SHIPPED, FoundBase, is_inside
from adapters.errors import AdapterError, BaseModelError, FileRefusedError, passing_cause
from adapters.lora.base_name import base_names, check_base_name
from adapters.lora.config import CONFIG_FILE, misplaced
from adapters.lora.manifest import (
    MANIFEST_FILE,
    Adapter,
    damaged_adapter,
    read_base_digest,
    read_fields,
    read_manifest,
)
from adapters.lora.shape_check import ModelShape, check_fit
from adapters.lora.tensorfile import WEIGHTS_FILE
from adapters.pickles import import_command
from adapters.registry.listing import RegistryListing, VersionFolder
from adapters.registry.pointers import PointersError
from adapters.registry.recovery import accepted_contents, check_pointers


@dataclass(frozen=True, slots=True)
class UnconvertedPickle:
    """An adapter of an existing installation that is a pickle, and so is not loaded."""

    path: Path

    @property
    def command(self) -> str:
        """What converts it."""
        return import_command(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAdapters:
    """What the usual places hold, in the order in which they were looked at."""

    adapters: tuple[Adapter, ...]
    """Those that can be served, and versions of the registry with a `problem`, which cannot any more."""
    refused: tuple[FileRefusedError, ...]
    """Folders that hold nothing that is served; each says why. What settings name is raised instead."""
    unconverted: tuple[UnconvertedPickle, ...]


@dataclass(frozen=True, slots=True)
class ServedBase:
    """What is asked of an adapter on the base that is served."""

    found: FoundBase
    digest: str | None = None
    """None: not compared."""
    shape: ModelShape | None = None
    """None for an architecture that has other sizes, which is for the engine to judge."""
    names: tuple[str, ...] = ()

    @classmethod
    def read(cls, found: FoundBase, digest: str | None = None) -> ServedBase:
        """Read the base's sizes and names."""
        try:
            shape = ModelShape.read(found.path)
        except BaseModelError:
            shape = None
        return cls(found, digest, shape, base_names(found.path, found.name))


def find_adapters(
    root: Path,
    home: Path,
    base: FoundBase,
    explicit: Sequence[str] = (),
    *,
    digest: str | None = None,
    shipped: Path = SHIPPED,
) -> FoundAdapters:
    """Adapters that the settings name, then those in `home`/registry, then in `root`/lora_adapters.

    With the mini base, its own come last. `explicit` holds `PATH`, `NAME=PATH` or `NAME@VERSION=PATH`; these
    are the first of the adapters found, in order. `digest` is the base's: what records another is refused for
    that, before anything else that is wrong with it.

    Reads each one's config, checks that its layout fits the base, hashes its weights and checks recorded
    digests. Raises `AdapterError` for one that `explicit` names and that cannot be served, `ValueError` for a
    NAME that is none.

    A version of the registry that cannot be served any more is found with its `problem`. If it is not known
    which versions are active, that is so for all of them.
    """
    served, registry = ServedBase.read(base, digest), home / "registry"
    adapters = [_explicit(entry).read(served) for entry in explicit]
    listing, unknown = _listing(home)
    places = [*_on_shelf(listing, registry), *_in_folder(root / "lora_adapters")]
    if base.shipped:
        places += _in_folder(shipped)
    found, refused = _read_all(places, served)
    if unknown is not None:
        found = [_without_pointers(adapter, registry, unknown) for adapter in found]
        refused.insert(0, unknown)
    refused += filter(None, map(misplaced, _folders(root / "lora_adapters")))
    pickles = [*_files(root / "weights", "*.pth"), *_files(root / "lora_adapters", "*/adapter.pth")]
    return FoundAdapters(
        adapters=(*adapters, *found),
        refused=tuple(refused),
        unconverted=tuple(map(UnconvertedPickle, pickles)),
    )


def read_named(entry: str, base: ServedBase) -> Adapter:
    """The adapter that the settings name by `PATH`, `NAME=PATH` or `NAME@VERSION=PATH`.

    Raises `AdapterError` if `base` cannot serve it, and `ValueError` for a NAME that is none.
    """
    return _explicit(entry).read(base)


def read_versions(
    listing: RegistryListing, registry: Path, base: ServedBase, folders: Collection[Path]
) -> tuple[list[Adapter], list[FileRefusedError]]:
    """The versions of a listing whose folders are among `folders`, read as `find_adapters` does.

    Also returns why some of them are not served.
    """
    places = (place for place in _on_shelf(listing, registry) if place.folder in folders)
    return _read_all(places, base)


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder in PEFT layout, the root it must stay inside, and the names that its place gives it."""

    folder: Path
    root: Path
    alias: str | None = None
    version: str | None = None
    recorded_first: bool = False
    """Whether what the adapter records of its names goes before these."""
    accepted: VersionFolder | None = None
    """The version that the registry took in here."""
    blobs: Path | None = None
    """Where its files may lie as well: Hugging Face's cache keeps them there, and links in the folder."""

    def damaged(self, base: ServedBase, problem: AdapterError) -> Adapter | None:
        """The version that was accepted here, with its `problem`; None if none was, or for another base."""
        entry = self.accepted
        if entry is None or self._of_another_base(base):
            return None
        try:
            names.alias(entry.alias)
            names.version(entry.version)
        except ValueError:
            return None
        known = accepted_contents(self.root.parent / "ledger", entry.full_name)
        return damaged_adapter(
            entry.folder,
            entry.alias,
            entry.version,
            problem.public,
            entry.language or known.language or self._language_of_others(),
            imported=entry.imported or known.imported,
        )

    def _language_of_others(self) -> str | None:
        """What the other versions of its alias speak, if it is one language."""
        others = {VersionFolder.of(path).language for path in self.folder.parent.glob("*") if path.is_dir()}
        return next(iter(others - {None})) if len(others - {None}) == 1 else None

    def _of_another_base(self, base: ServedBase) -> bool:
        """Whether its manifest is whole and names another base, by digest and by name."""
        try:
            fields = read_fields(self.folder)
            recorded = read_base_digest(self.folder, fields)
        except AdapterError:
            return False
        return recorded not in (None, base.digest) and fields.get("base") not in base.names

    def read(self, base: ServedBase) -> Adapter:
        """Raises `AdapterError`, also if it is for another base, or does not fit."""
        if self.accepted is not None and not self.folder.is_dir():
            return self.accepted.read()  # which says that it is missing
        for file in (
            self.folder,
            *(self.folder / name for name in (CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE)),
        ):
            roots = (self.root, self.blobs) if self.blobs is not None else (self.root,)
            if file.exists() and not any(is_inside(file, root) for root in roots):
                remedy = "Put the files themselves there, or name their folder in the setting adapters."
                raise AdapterError(file, "is a link that leads out of the folder it was found in", remedy)
        try:
            recorded = read_fields(self.folder) if self.recorded_first else {}
            alias = None if "alias" in recorded else self.alias
            version = None if "version" in recorded else self.version
            self._check_recorded_base(base)
            if base.shape is not None:
                check_fit(self.folder, base.shape)
            adapter = read_manifest(self.folder, alias=alias, version=version)
            if adapter.base_digest is None:
                check_base_name(self.folder, base.names)
            return adapter
        except FileRefusedError:
            raise
        except ValueError as problem:
            raise AdapterError(self.folder, str(problem), "Rename the folder.") from problem

    def _check_recorded_base(self, base: ServedBase) -> None:
        """Raise `AdapterError` if its oneseek.json records another base."""
        recorded = read_base_digest(self.folder, read_fields(self.folder))
        if base.digest is None or recorded in (None, base.digest):
            return
        reason = f"was made for another base than {base.found.name}, which is {base.digest}"
        remedy = "Name its own base with --base-model, or train it again for this one."
        if self.accepted is not None:
            remedy = "Serve the base that it was made for, or promote another version."
        raise AdapterError(self.folder / MANIFEST_FILE, reason, remedy, field="base_digest", value=recorded)


def _listing(home: Path) -> tuple[RegistryListing, PointersError | None]:
    """What the registry holds, and why it is not known which versions are active, if it is not."""
    registry = home / "registry"
    try:
        listing = RegistryListing.read(registry)
        check_pointers(listing, registry, home / "ledger")
    except PointersError as problem:
        return RegistryListing.without_pointers(registry), problem
    return listing, None


def _without_pointers(adapter: Adapter, registry: Path, why: PointersError) -> Adapter:
    if adapter.problem is not None or not adapter.path.is_relative_to(registry):
        return adapter
    return damaged_adapter(
        adapter.path,
        adapter.alias,
        adapter.version,
        why.public,
        adapter.language,
        imported=adapter.imported,
    )


def _explicit(entry: str) -> _Place:
    name, equals, path = entry.partition("=")
    named = bool(equals) and not Path(entry).is_dir()
    folder = Path(path if named else entry)
    alias, version = names.split_name(name) if named else (None, None)
    if not folder.is_dir():
        raise AdapterError(folder, "is not a folder", "Give the folder that holds adapter_config.json.")
    return _Place(folder, folder, alias, version, blobs=_blobs(folder))


def _blobs(folder: Path) -> Path | None:
    """Where Hugging Face's cache keeps the files of a snapshot that `folder` is or is in."""
    for place in (folder.resolve(), *folder.resolve().parents):
        if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
            return place.parent.parent / "blobs"
    return None


def _read_all(places: Iterable[_Place], base: ServedBase) -> tuple[list[Adapter], list[FileRefusedError]]:
    """What the places hold, and why some of it is not served."""
    adapters: list[Adapter] = []
    refused: list[FileRefusedError] = []
    for place in places:
        try:
            adapter = place.read(base)
            if place.accepted is not None:
                _check_accepted(place.accepted, adapter, place.root.parent / "ledger")
            adapters.append(adapter)
        except AdapterError as problem:
            if (passing := passing_cause(problem)) is not None:
                raise passing from problem  # it says nothing of the files
            refused.append(problem)
            damaged = place.damaged(base, problem)
            if damaged is not None:
                adapters.append(damaged)
    return adapters, refused


def _check_accepted(entry: VersionFolder, adapter: Adapter, ledger: Path) -> None:
    """Raise `AdapterError` for a version that is not what was accepted, though its files fit together."""
    if adapter.full_name.lower() != entry.full_name.lower():
        reason = f"names {adapter.full_name}, and the registry took it in as {entry.full_name}"
        raise AdapterError(entry.folder / MANIFEST_FILE, reason, "Restore it.")
    if entry.recorded_digest is None:
        told = accepted_contents(ledger, adapter.full_name).digest
        if told not in (None, adapter.digest):
            reason = f"records no digest, and the files have {adapter.digest}; the ledger knows {told}"
            raise AdapterError(entry.folder / MANIFEST_FILE, reason, "Restore the files.")


def _on_shelf(listing: RegistryListing, registry: Path) -> Iterator[_Place]:
    """What the registry holds, without retired versions."""
    for entry in listing.entries:
        if not listing.is_retired(entry):
            place = entry.folder
            yield _Place(place, registry, place.parent.name, place.name, recorded_first=True, accepted=entry)


def _in_folder(place: Path) -> Iterator[_Place]:
    return (_Place(folder, place) for folder in _folders(place) if os.path.lexists(folder / CONFIG_FILE))


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.iterdir() if not path.name.startswith(".") and path.is_dir())
    except OSError:
        return []


def _files(place: Path, pattern: str) -> list[Path]:
    return sorted(path for path in place.glob(pattern) if path.is_file() and is_inside(path, place))
