"""Find the adapters in a whole folder of an existing installation, and the order in which to import them.

No file is opened here. `adapters.pth.importer` converts them.
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
"""The version that existing installations look for first."""
_SUFFIXES = (*PICKLE_SUFFIXES, ".safetensors")
_OF_TRAINERS = ("optimizer", "scheduler", "scaler", "training_args", "rng_state", "trainer_state")
"""Prefixes of what a trainer's checkpoint holds besides weights."""


@dataclass(frozen=True)
class ImportCandidate:
    """An adapter to import: a file to convert, or a folder in PEFT layout to add unchanged."""

    path: Path

    @property
    def converts(self) -> bool:
        """True if the adapter is a file that must be converted."""
        return not self.path.is_dir()

    @cached_property
    def language(self) -> str | None:
        """The language in its names or in the file beside it. None if none is stated."""
        if self.converts:
            return told_language(self.path)
        try:
            recorded: object = read_fields(self.path).get("language")
        except AdapterError:
            return None
        return recorded if isinstance(recorded, str) else self._named.language

    @cached_property
    def order(self) -> tuple[str, tuple[tuple[int, int, str], ...]]:
        """Return a sort key of alias and version, from the file's name."""
        return self._named.alias.lower(), names.natural(self._named.version)

    @property
    def comes_first(self) -> bool:
        """True if existing installations load this version first."""
        return self._named.version.lower() == FIRST

    @cached_property
    def _named(self) -> names.FolderName:
        title = name_of(self.path) if self.converts else names.folder_title(self.path.absolute())
        try:
            return names.FolderName.read(title)
        except ValueError:
            return names.FolderName("imported", "v1", None)


def find_candidates(paths: Iterable[Path]) -> list[ImportCandidate]:
    """Find the adapters at `paths`: files, folders of files, folders of adapter folders, or adapter folders.

    For each alias, the version that an existing installation loads comes first, so that it becomes active:
    v1.1, else the highest. The others follow in order. Raises `AdapterError` for a folder without an adapter.
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
        remedy = "Name a folder with .pth, .pt, .bin or .safetensors files, or with folders in PEFT layout."
        raise AdapterError(folder, "does not hold an adapter", remedy)
    return found


def _in_inner(folder: Path) -> list[Path]:
    """Return the adapters in a subfolder.

    A subfolder that was meant for an adapter but has none, or only further below, is also returned, to be
    refused.
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
