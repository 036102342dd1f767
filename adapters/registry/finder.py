"""Where bases and adapters are found, in the order that existing installations use.

Only the places named here and those that the settings name are looked at. A found path must, with every link
followed, stay inside the place it was found in; what leads out of it has to be named in the settings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters import names
from adapters.bases import SHIPPED, FoundBase, is_inside
from adapters.errors import AdapterError, BaseModelError, FileRefusedError
from adapters.lora.config import CONFIG_FILE, misplaced
from adapters.lora.manifest import MANIFEST_FILE, Adapter, read_fields, read_manifest
from adapters.lora.pickles import import_command
from adapters.lora.shape_check import ModelShape, check_fit
from adapters.lora.tensorfile import WEIGHTS_FILE
from adapters.registry.listing import RegistryListing


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
    refused: tuple[AdapterError, ...]
    """Folders that look like adapters and are none; each says why. What settings name is raised instead."""
    unconverted: tuple[UnconvertedPickle, ...]


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
    that, before anything else that is wrong with it. Reads each one's config, checks that its layout fits the
    base, hashes its weights and checks recorded digests. Raises `AdapterError` for one that `explicit` names
    and that cannot be served, `ValueError` for a NAME that is none.
    """
    shape, registry = _shape(base), home / "registry"
    adapters = [_explicit(entry).read(shape, digest) for entry in explicit]
    places = [*_on_shelf(RegistryListing.read(registry), registry), *_in_folder(root / "lora_adapters")]
    if base.shipped:
        places += _in_folder(shipped)
    found, refused = _read_all(places, shape, digest)
    refused += filter(None, map(misplaced, _folders(root / "lora_adapters")))
    pickles = [*_files(root / "weights", "*.pth"), *_files(root / "lora_adapters", "*/adapter.pth")]
    return FoundAdapters(
        adapters=(*adapters, *found),
        refused=tuple(refused),
        unconverted=tuple(map(UnconvertedPickle, pickles)),
    )


def read_versions(
    listing: RegistryListing, registry: Path, base: FoundBase, folders: Collection[Path]
) -> tuple[list[Adapter], list[AdapterError]]:
    """The versions of a listing whose folders are among `folders`, read as `find_adapters` does.

    Also returns why others of them hold nothing that is served.
    """
    places = (place for place in _on_shelf(listing, registry) if place.folder in folders)
    return _read_all(places, _shape(base))


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder in PEFT layout, the root it must stay inside, and the names that its place gives it."""

    folder: Path
    root: Path
    alias: str | None = None
    version: str | None = None
    recorded_first: bool = False
    """Whether what the adapter records of its names goes before these."""
    blobs: Path | None = None
    """Where its files may lie as well: Hugging Face's cache keeps them there, and links in the folder."""

    def read(self, shape: ModelShape | None, digest: str | None = None) -> Adapter:
        """Raises `AdapterError`, also if it is for another base than `digest`, or does not fit `shape`."""
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
            _check_recorded_base(self.folder, digest)
            if shape is not None:
                check_fit(self.folder, shape)
            return read_manifest(self.folder, alias=alias, version=version)
        except FileRefusedError:
            raise
        except ValueError as problem:
            raise AdapterError(self.folder, str(problem), "Rename the folder.") from problem


def _shape(base: FoundBase) -> ModelShape | None:
    """The base's sizes; None for an architecture that has others, which is for the engine to judge."""
    try:
        return ModelShape.read(base.path)
    except BaseModelError:
        return None


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


def _read_all(
    places: Iterable[_Place], shape: ModelShape | None, digest: str | None = None
) -> tuple[list[Adapter], list[AdapterError]]:
    """What the places hold, and why some hold nothing that is served."""
    adapters: list[Adapter] = []
    refused: list[AdapterError] = []
    for place in places:
        try:
            adapters.append(place.read(shape, digest))
        except AdapterError as problem:
            refused.append(problem)
    return adapters, refused


def _on_shelf(listing: RegistryListing, registry: Path) -> Iterator[_Place]:
    """What the registry holds, without retired versions."""
    for entry in listing.entries:
        if not listing.is_retired(entry):
            place = entry.folder
            yield _Place(place, registry, place.parent.name, place.name, recorded_first=True)


def _check_recorded_base(folder: Path, digest: str | None) -> None:
    """Raise `AdapterError` if oneseek.json in `folder` records another base than `digest`; None: any."""
    recorded: object = read_fields(folder).get("base_digest")
    if digest is not None and recorded not in (None, digest):
        remedy = "Name its own base with --base-model, or train it again for this one."
        reason = f"was made for another base than this one, which is {digest}"
        raise AdapterError(folder / MANIFEST_FILE, reason, remedy, field="base_digest", value=recorded)


def _in_folder(place: Path) -> Iterator[_Place]:
    return (_Place(folder, place) for folder in _folders(place) if (folder / CONFIG_FILE).is_file())


def _folders(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if not path.name.startswith(".") and path.is_dir())


def _files(place: Path, pattern: str) -> list[Path]:
    return sorted(path for path in place.glob(pattern) if path.is_file() and is_inside(path, place))
