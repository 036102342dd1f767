"""Where bases and adapters are found, in the order that existing installations use.

Only the places named here and those that the settings name are looked at. A found path must, with every link
followed, stay inside the place it was found in; what leads out of it has to be named in the settings.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from adapters import names
from adapters.bases import SHIPPED, FoundBase, is_inside
from adapters.errors import AdapterError, BaseModelError, FileRefusedError, passing_cause
from adapters.files.hashes import HashCache
from adapters.lora.base_name import base_names, check_base_name
from adapters.lora.config import CONFIG_FILE, misplaced
from adapters.lora.manifest import (
    MANIFEST_FILE,
    Adapter,
    AdapterPlace,
    damaged_adapter,
    read_base_digest,
    read_fields,
    read_manifest,
)
from adapters.lora.shape_check import ModelShape
from adapters.lora.tensorfile import WEIGHTS_FILE
from adapters.pickles import PICKLES, import_command
from adapters.registry.acceptance import CheckedNumbers
from adapters.registry.imported import ImportedFiles
from adapters.registry.listing import RegistryListing, VersionFolder
from adapters.registry.pointers import AliasPointers, PointersError
from adapters.registry.recovery import accepted_contents, check_pointers, told_pointers


@dataclass(frozen=True, slots=True)
class UnconvertedPickle:
    """An adapter of an existing installation that is a pickle, not loaded and not imported yet."""

    path: Path
    place: Path
    """The folder that was looked into: weights, or lora_adapters."""

    @property
    def command(self) -> str:
        """What converts it."""
        return import_command(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAdapters:
    """What the usual places hold, in the order in which they were looked at."""

    adapters: tuple[Adapter, ...]
    """Those that can be served, and versions with a `problem`, which were accepted and cannot any more."""
    named: tuple[Adapter, ...]
    """Those of them that the settings name; they come first."""
    retired: tuple[Adapter, ...]
    """Those outside the registry that are served no longer until they are promoted."""
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
    hashes: HashCache | None = None
    """See `read_manifest`. None: the weights of every adapter are hashed."""
    numbers: CheckedNumbers = field(default_factory=lambda: CheckedNumbers(None))

    @classmethod
    def read(
        cls,
        found: FoundBase,
        digest: str | None = None,
        hashes: HashCache | None = None,
        numbers: CheckedNumbers | None = None,
    ) -> ServedBase:
        """Read the base's sizes and names; `numbers` knows which adapters were checked before."""
        try:
            shape = ModelShape.read(found.path)
        except BaseModelError:
            shape = None
        known = base_names(found.path, found.name)
        return cls(found, digest, shape, known, hashes, numbers or CheckedNumbers(None))


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
    """Adapters that the settings name, then those in `home`/registry, then in `root`/lora_adapters.

    With the mini base, its own come last. `explicit` holds `PATH`, `NAME=PATH` or `NAME@VERSION=PATH`; these
    are the first of the adapters found, in order. `digest` is the base's: what records another is refused for
    that, before anything else that is wrong with it.

    Reads each one's config, checks that its layout fits the base, hashes its weights and checks recorded
    digests; with `hashes`, weights are hashed when they are loaded. Raises `AdapterError` for one that
    `explicit` names and that cannot be served, `ValueError` for a NAME that is none.

    A version of the registry, or one that a pointer names, that cannot be served any more is found with its
    `problem`. If it is not known which versions are active, that is so for all of the registry.
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
    kept = (place for place in _on_shelf(listing, registry) if place.folder in folders)
    pointed = (place for place in _pointed(listing.pointers, base) if place.folder in folders)
    return _read_all([*kept, *pointed], base)


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
    """The version of the registry here, or the one that a pointer names."""
    place: AdapterPlace = "registry"
    pointed: bool = False
    """Whether a pointer names it."""
    blobs: Path | None = None
    """Where its files may lie as well: Hugging Face's cache keeps them there, and links in the folder."""

    def is_among(self, adapters: Iterable[Adapter]) -> bool:
        """Whether one of these is the version that was accepted here."""
        entry = self.accepted
        return entry is not None and any(entry.is_named(one.alias, one.version) for one in adapters)

    def damaged(self, base: ServedBase, problem: AdapterError) -> Adapter | None:
        """The version that was accepted here, with its `problem`; None if none was, or for another base."""
        entry = self.accepted
        if entry is None or self._of_another_base(base):
            return None
        if entry.outside is not None:
            told, language = problem.public, entry.outside.language
            return damaged_adapter(
                entry.folder, entry.alias, entry.version, told, language, place=entry.place
            )
        try:
            names.alias(entry.alias)
            names.version(entry.version)
        except ValueError:
            return None
        known = accepted_contents(self.root.parent / "ledger", entry.full_name)
        if not self.pointed and known.digest is None and entry.recorded_digest is None:
            return None  # put there by hand, and never whole
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
        if self.accepted is not None and self.accepted.outside is not None:
            return False  # nothing is pointed at for another base than the one it was served on
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
        self._check_links()
        try:
            recorded = read_fields(self.folder)
            alias = None if self.recorded_first and "alias" in recorded else self.alias
            version = None if self.recorded_first and "version" in recorded else self.version
            self._check_recorded_base(base, recorded)
            adapter = read_manifest(
                self.folder,
                alias=alias,
                version=version,
                hashes=base.hashes,
                shape=base.shape,
                fields=recorded,
            )
            if self.accepted is not None:
                known = recorded.get("digest") is not None
                _check_accepted(self.accepted, adapter, self.root.parent / "ledger", digest_recorded=known)
            if adapter.base_digest is None:
                check_base_name(self.folder, base.names)
            if base.shape is not None and not self._taken_in(adapter):
                base.numbers.check(self.folder, base.shape)
            return replace(adapter, place=self.place)
        except FileRefusedError:
            raise
        except ValueError as problem:
            raise AdapterError(self.folder, str(problem), "Rename the folder.") from problem

    def _check_links(self) -> None:
        """Raise `AdapterError` for a link that leads out of the place."""
        roots = (self.root, self.blobs) if self.blobs is not None else (self.root,)
        files = [self.folder / name for name in (CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE)]
        # A file that is no link lies where its folder does.
        for file in (self.folder, *filter(Path.is_symlink, files)):
            if _lies_below(file, self.root):
                continue
            if file.exists() and not any(is_inside(file, root) for root in roots):
                remedy = "Put the files themselves there, or name their folder in the setting adapters."
                raise AdapterError(file, "is a link that leads out of the folder it was found in", remedy)

    def _taken_in(self, adapter: Adapter) -> bool:
        """Whether the registry noted digests of it and its base, so that its numbers were checked then."""
        entry = self.accepted
        recorded = entry is not None and entry.outside is None and entry.recorded_digest is not None
        return recorded and adapter.base_digest is not None

    def _check_recorded_base(self, base: ServedBase, fields: Mapping[str, object]) -> None:
        """Raise `AdapterError` if the fields of its oneseek.json record another base."""
        recorded = read_base_digest(self.folder, fields)
        if base.digest is None or recorded in (None, base.digest):
            return
        reason = f"was made for another base than {base.found.name}, which is {base.digest}"
        remedy = "Name its own base with --base-model, or train it again for this one."
        if self.accepted is not None:
            remedy = "Serve the base that it was made for, or promote another version."
        raise AdapterError(self.folder / MANIFEST_FILE, reason, remedy, field="base_digest", value=recorded)


def _lies_below(path: Path, root: Path) -> bool:
    """Whether no link is on the way from `root` to `path`, so that it need not be followed."""
    while path != root and path != path.parent:
        if path.is_symlink():
            return False
        path = path.parent
    return path == root


def _listing(home: Path) -> tuple[RegistryListing, AliasPointers, PointersError | None]:
    """What the registry holds, its pointers, and why it is not known which versions are active, if it is not.

    Then the pointers are what the ledger tells of versions outside the registry.
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


def _explicit(entry: str) -> _Place:
    name, equals, path = entry.partition("=")
    named = bool(equals) and not Path(entry).is_dir()
    folder = Path(path if named else entry)
    alias, version = names.split_name(name) if named else (None, None)
    if not folder.is_dir():
        raise AdapterError(folder, "is not a folder", "Give the folder that holds adapter_config.json.")
    return _Place(folder, folder, alias, version, place="settings", blobs=_blobs(folder))


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


def _check_accepted(entry: VersionFolder, adapter: Adapter, ledger: Path, *, digest_recorded: bool) -> None:
    """Raise `AdapterError` for a version that is not what was accepted, though its files fit together."""
    if adapter.full_name.lower() != entry.full_name.lower():
        reason = f"names {adapter.full_name}, and it was accepted as {entry.full_name}"
        raise AdapterError(entry.folder / MANIFEST_FILE, reason, "Restore it.")
    if not digest_recorded and entry.outside is None:
        told = accepted_contents(ledger, adapter.full_name).digest
        if told not in (None, adapter.digest):
            reason = f"records no digest, and the files have {adapter.digest}; the ledger knows {told}"
            raise AdapterError(entry.folder / MANIFEST_FILE, reason, "Restore the files.")


def _on_shelf(listing: RegistryListing, registry: Path) -> Iterator[_Place]:
    """What the registry holds, without retired versions."""
    for entry in listing.entries:
        if entry.outside is None and not listing.is_retired(entry):
            folder, history = entry.folder, listing.pointers.state(entry.alias).history
            yield _Place(
                folder,
                registry,
                folder.parent.name,
                folder.name,
                recorded_first=True,
                accepted=entry,
                pointed=entry.version.lower() in history,
            )


def _pointed(pointers: AliasPointers, base: ServedBase) -> Iterator[_Place]:
    """The versions outside the registry that pointers name: served ones that are there, and active ones."""
    for alias, state in pointers.states.items():
        for version, record in state.folders.items():
            active = pointers.active(alias) == version
            if version in state.retired or not record.fits(base.digest):
                continue
            if active or record.path.is_dir():
                by_name = record.place == "settings"
                yield _Place(
                    record.path,
                    record.root,
                    record.alias if by_name else None,
                    record.version if by_name else None,
                    accepted=VersionFolder.recorded(record),
                    place=record.place,
                    pointed=True,
                    blobs=_blobs(record.path) if by_name else None,
                )


def _in_folder(place: Path, kind: AdapterPlace) -> Iterator[_Place]:
    found = (folder for folder in _folders(place) if os.path.lexists(folder / CONFIG_FILE))
    return (_Place(folder, place, place=kind) for folder in found)


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
