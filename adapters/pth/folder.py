"""Find the adapters in the folders of an older OneSeek installation, and decide the order of importing them.

This module opens no weight file; `adapters.pth.importer` converts the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

from adapters import names
from adapters.errors import AdapterError
from adapters.lora.config import CONFIG_FILE, misplaced
from adapters.lora.manifest import read_fields
from adapters.lora.tensorfile import WEIGHTS_FILE
from adapters.pickles import PICKLE_SUFFIXES, name_of, told_language

FIRST = "v1.1"
"""The version of an alias that an older OneSeek installation loads. Without it, the installation loads the
highest version.
"""
_SUFFIXES = (*PICKLE_SUFFIXES, ".safetensors")
_OF_TRAINERS = ("optimizer", "scheduler", "scaler", "training_args", "rng_state", "trainer_state")
"""Prefixes of file names in a trainer's checkpoint that hold no weights. Such files are ignored."""


@dataclass(frozen=True)
class ImportCandidate:
    """One adapter to import: a file to convert, or a folder in PEFT format to add unchanged."""

    path: Path

    @property
    def converts(self) -> bool:
        """True if the adapter is a file to convert; False if it is a folder to add unchanged."""
        return not self.path.is_dir()

    @cached_property
    def language(self) -> str | None:
        """Language of the adapter, from its name or the JSON file that comes with it. None if neither states
        a language.
        """
        if self.converts:
            return told_language(self.path)
        try:
            recorded: object = read_fields(self.path).get("language")
        except AdapterError:
            return None
        return recorded if isinstance(recorded, str) else self._named.language

    @cached_property
    def order(self) -> tuple[str, tuple[tuple[int, int, str], ...]]:
        """Sort key: the alias and version in the file's or folder's name."""
        return self._named.alias.lower(), names.natural(self._named.version)

    @property
    def comes_first(self) -> bool:
        """True if an older OneSeek installation loads this version rather than the alias's other versions."""
        return self._named.version.lower() == FIRST

    @cached_property
    def _named(self) -> names.FolderName:
        title = name_of(self.path) if self.converts else names.folder_title(self.path.absolute())
        try:
            return names.FolderName.read(title)
        except ValueError:
            return names.FolderName("imported", "v1", None)


def find_candidates(paths: Iterable[Path]) -> list[ImportCandidate]:
    """Find the adapters to import at `paths`. A path may be an adapter file, an adapter folder, or a folder
    that holds either.

    The first version of each alias becomes the active one. It is the version that an older OneSeek
    installation loads: v1.1, or else the highest. The other versions follow in ascending order. Raises
    `AdapterError` for a folder without adapters.
    """
    found: dict[Path, ImportCandidate] = {}
    for path in paths:
        for one in _below(path) if path.is_dir() else [path]:
            found.setdefault(one.absolute(), ImportCandidate(one))
    ordered = sorted(found.values(), key=lambda candidate: candidate.order)
    return [
        one
        for _, group in groupby(ordered, key=lambda candidate: candidate.order[0])
        for one in _with_served_first(list(group))
    ]


def _with_served_first(versions: Sequence[ImportCandidate]) -> list[ImportCandidate]:
    served = next((one for one in versions if one.comes_first), versions[-1])
    return [served, *(one for one in versions if one is not served)]


def _below(folder: Path) -> list[Path]:
    if _is_peft(folder):
        return [folder]
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [*_weight_files(folder), *(path for place in inner for path in _in_inner(place))]
    if not found:
        raise AdapterError(
            folder,
            "the folder does not hold any adapter",
            "Name a folder with .pth, .pt, .bin or .safetensors files, or with folders in PEFT format.",
        )
    return found


def _in_inner(folder: Path) -> list[Path]:
    """Return the adapter files in a subfolder, or the subfolder itself if it is an adapter in PEFT format.

    A subfolder that looks like a broken adapter folder is returned too, so that the import refuses it with a
    reason.
    """
    if _is_peft(folder):
        return [folder]
    files = _weight_files(folder)
    meant = (folder / CONFIG_FILE).is_file() or misplaced(folder) is not None
    return files or ([folder] if meant else [])


def _is_peft(folder: Path) -> bool:
    return (folder / CONFIG_FILE).is_file() and (folder / WEIGHTS_FILE).is_file()


def _weight_files(folder: Path) -> list[Path]:
    if (folder / "config.json").is_file() and not (folder / CONFIG_FILE).is_file():
        return []  # a base
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES
        and path.is_file()
        and not path.name.lower().startswith((".", *_OF_TRAINERS))
    )
