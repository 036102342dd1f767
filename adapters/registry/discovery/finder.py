"""Find adapters on disk, in the order in which earlier releases of OneSeek searched folders.

Only the standard folders and those in the settings are searched. Links that lead outside the searched folder
are refused. To use a folder elsewhere, name it in the settings.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adapters import names
from adapters.bases import SHIPPED, FoundBase, is_inside
from adapters.errors import AdapterError, FileRefusedError, passing_cause
from adapters.files.hashes import HashCache
from adapters.lora.config import CONFIG_FILE, misplaced
from adapters.lora.manifest import (
    Adapter,
    AdapterPlace,
    damaged_adapter,
)
from adapters.pickles import PICKLES, import_command
from adapters.registry.discovery.acceptance import CheckedNumbers
from adapters.registry.discovery.adapter_folder import AdapterFolder, ServedBase
from adapters.registry.discovery.imported import ImportedFiles
from adapters.registry.listing import RegistryListing, VersionFolder
from adapters.registry.pointers import AliasPointers, PointersError
from adapters.registry.recovery import check_pointers, told_pointers


@dataclass(frozen=True, slots=True)
class UnconvertedPickle:
    """A pickled adapter of an earlier OneSeek installation that was not converted yet. It cannot be
    served.
    """

    path: Path
    place: Path
    """The folder in which the pickle was found: weights or lora_adapters."""

    @property
    def command(self) -> str:
        """The command that converts the pickle to an adapter."""
        return import_command(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAdapters:
    """The adapters in the searched folders, in search order, and the reasons why some are not served."""

    adapters: tuple[Adapter, ...]
    """Adapters that can be served, and damaged versions, which have a `problem` and cannot be served any
    more.
    """
    named: tuple[Adapter, ...]
    """The adapters that the settings name. They are also the first ones in `adapters`."""
    retired: tuple[Adapter, ...]
    """Retired versions outside the registry: not served until they are promoted."""
    refused: tuple[FileRefusedError, ...]
    """Reasons why adapters in searched folders cannot be served, one for each folder. For a folder that the
    settings name, an error is raised instead.
    """
    unconverted: tuple[UnconvertedPickle, ...]


def find_adapters(
    root: Path,
    home: Path,
    base: FoundBase,
    explicit: Sequence[str] = (),
    *,
    digest: str | None = None,
    shipped: Path = SHIPPED,
    hashes: HashCache | None = None,
) -> FoundAdapters:
    """Find adapters: first those that the settings name, then those in `home`/registry, then those in
    `root`/lora_adapters.

    If `base` is the mini base that ships with OneSeek, its shipped adapters come last. `explicit` holds the
    adapters in the settings as `PATH`, `NAME=PATH` or `NAME@VERSION=PATH`. `digest` is the digest of the
    base; an adapter that records another base is refused for that reason before any other check.

    Reads each config, checks that the layout fits the base, hashes the weights and checks recorded digests.
    With `hashes`, weights are hashed when they are loaded. Raises `AdapterError` if an adapter in `explicit`
    cannot be served, and `ValueError` for an invalid NAME.

    A damaged version that the registry has recorded is returned with its `problem`. If the file of active
    versions is lost or damaged, every version in the registry has a `problem`.
    """
    served = ServedBase.read(base, digest, hashes, CheckedNumbers.open(home / "cache"))
    listing, pointers, unknown = _listing(home)
    adapters = [_explicit(entry).read(served) for entry in explicit]
    places = [*_on_shelf(listing, home / "registry"), *_in_folder(root / "lora_adapters", "lora_adapters")]
    if base.shipped:
        places += _in_folder(shipped, "shipped")
    found, refused = _read_all(places, served)
    pointed = [place for place in _pointed(pointers, served) if not place.is_among((*adapters, *found))]
    missing, again = _read_all(pointed, served)
    refused += [problem for problem in again if str(problem) not in map(str, refused)]
    if unknown is not None:
        found = [_without_pointers(adapter, unknown) for adapter in found]
        refused.insert(0, unknown)
    refused += filter(None, map(misplaced, _folders(root / "lora_adapters")))
    pickles = [
        *_pickles(root / "weights", ("*.pth", "*.pt", "*.bin")),
        *_pickles(root / "lora_adapters", [f"*/{name}" for name in PICKLES]),
    ]
    done = ImportedFiles(listing.entries if pickles else ())
    served.numbers.save()
    every = (*adapters, *found, *missing)
    retired = [one for one in every if pointers.is_retired(one.alias, one.version)]
    return FoundAdapters(
        adapters=tuple(one for one in every if one not in retired),
        named=tuple(one for one in adapters if one not in retired),
        retired=tuple(retired),
        refused=tuple(refused),
        unconverted=tuple(one for one in pickles if done.version_of(one.path, home / "cache") is None),
    )


def read_named(entry: str, base: ServedBase) -> Adapter:
    """Read the adapter that the settings name by `PATH`, `NAME=PATH` or `NAME@VERSION=PATH`.

    Raises `AdapterError` if `base` cannot serve it, and `ValueError` for an invalid NAME.
    """
    return _explicit(entry).read(base)


def read_versions(
    listing: RegistryListing, registry: Path, base: ServedBase, folders: Collection[Path]
) -> tuple[list[Adapter], list[FileRefusedError]]:
    """Read those of the registry's versions in `listing` whose folders are among `folders`. Also return the
    reasons why some cannot be served.
    """
    kept = (place for place in _on_shelf(listing, registry) if place.folder in folders)
    pointed = (place for place in _pointed(listing.pointers, base) if place.folder in folders)
    return _read_all([*kept, *pointed], base)


def _listing(home: Path) -> tuple[RegistryListing, AliasPointers, PointersError | None]:
    """Return the registry's versions, its file of active versions, and the error if that file is lost or
    damaged.

    After such an error, return instead what the ledger records about versions outside the registry.
    """
    registry = home / "registry"
    try:
        listing = RegistryListing.read(registry)
        check_pointers(listing, registry, home / "ledger")
    except PointersError as problem:
        states = told_pointers(home / "ledger").states.items()
        told = AliasPointers({alias: state for alias, state in states if state.folders})
        return RegistryListing.without_pointers(registry), told, problem
    return listing, listing.pointers, None


def _without_pointers(adapter: Adapter, why: PointersError) -> Adapter:
    if adapter.problem is not None or adapter.place != "registry":
        return adapter
    return damaged_adapter(
        adapter.path,
        adapter.alias,
        adapter.version,
        why.public,
        adapter.language,
        imported=adapter.imported,
    )


def _explicit(entry: str) -> AdapterFolder:
    name, equals, path = entry.partition("=")
    named = bool(equals) and not Path(entry).is_dir()
    folder = Path(path if named else entry)
    alias, version = names.split_name(name) if named else (None, None)
    if not folder.is_dir():
        raise AdapterError(
            folder, "the adapter's path is not a folder", "Give the folder that holds adapter_config.json."
        )
    return AdapterFolder(folder, folder, alias, version, place="settings", blobs=_blobs(folder))


def _blobs(folder: Path) -> Path | None:
    """Return the folder in which Hugging Face's cache keeps the files, if `folder` is a snapshot in that
    cache. None otherwise.
    """
    for place in (folder.resolve(), *folder.resolve().parents):
        if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
            return place.parent.parent / "blobs"
    return None


def _read_all(
    places: Iterable[AdapterFolder], base: ServedBase
) -> tuple[list[Adapter], list[FileRefusedError]]:
    """Read the adapters in the folders `places`. Also return the reasons why some cannot be served."""
    adapters: list[Adapter] = []
    refused: list[FileRefusedError] = []
    for place in places:
        try:
            adapter = place.read(base)
            if place.pointed and place.accepted is not None and place.accepted.outside is not None:
                adapter = replace(adapter, language=place.accepted.outside.language)
            adapters.append(adapter)
        except AdapterError as problem:
            if (passing := passing_cause(problem)) is not None:
                raise passing from problem  # it says nothing of the files
            refused.append(problem)
            damaged = place.damaged(base, problem)
            if damaged is not None:
                adapters.append(damaged)
    return adapters, refused


def _on_shelf(listing: RegistryListing, registry: Path) -> Iterator[AdapterFolder]:
    """List the folders of the versions in the registry, without the retired versions."""
    for entry in listing.entries:
        if entry.outside is None and not listing.is_retired(entry):
            folder, history = entry.folder, listing.pointers.state(entry.alias).history
            yield AdapterFolder(
                folder,
                registry,
                folder.parent.name,
                folder.name,
                recorded_first=True,
                accepted=entry,
                pointed=entry.version.lower() in history,
            )


def _pointed(pointers: AliasPointers, base: ServedBase) -> Iterator[AdapterFolder]:
    """List the folders outside the registry whose versions it has recorded: active versions, and others whose
    folder still exists.
    """
    for alias, state in pointers.states.items():
        for version, record in state.folders.items():
            active = pointers.active(alias) == version
            if version in state.retired or not record.fits(base.digest):
                continue
            if active or record.path.is_dir():
                by_name = record.place == "settings"
                yield AdapterFolder(
                    record.path,
                    record.root,
                    record.alias if by_name else None,
                    record.version if by_name else None,
                    accepted=VersionFolder.recorded(record),
                    place=record.place,
                    pointed=True,
                    blobs=_blobs(record.path) if by_name else None,
                )


def _in_folder(place: Path, kind: AdapterPlace) -> Iterator[AdapterFolder]:
    found = (folder for folder in _folders(place) if os.path.lexists(folder / CONFIG_FILE))
    return (AdapterFolder(folder, place, place=kind) for folder in found)


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.iterdir() if not path.name.startswith(".") and path.is_dir())
    except OSError:
        return []


def _pickles(place: Path, patterns: Iterable[str]) -> list[UnconvertedPickle]:
    found = {path for pattern in patterns for path in place.glob(pattern)}
    return [
        UnconvertedPickle(path, place) for path in sorted(found) if path.is_file() and is_inside(path, place)
    ]
