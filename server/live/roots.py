"""Where adapters may be named over HTTP: folders beneath configured roots, with every link followed.

A path outside of them is refused before the file system is asked about it, and what leads out of them by a
link is refused in the same words, so that nobody learns from the answer what the host holds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from adapters.lora.card import CARD_FILE
from adapters.lora.config import CONFIG_FILE
from adapters.lora.manifest import MANIFEST_FILE
from adapters.lora.tensorfile import WEIGHTS_FILE

MAX_PATH = 1024
"""Characters of a path."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_READ = (CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE, CARD_FILE)


class PathRefusedError(ValueError):
    """A path is not opened; the message holds nothing of the host."""


class PathMissingError(PathRefusedError):
    """There is no such folder beneath the roots."""


class Roots:
    """Folders beneath which a client may name adapters. Relative ones, and relative paths, are in `here`."""

    def __init__(self, roots: Iterable[Path], here: Path | None = None) -> None:
        self._here = (here or Path.cwd()).absolute()
        self._roots = tuple(self._here / root for root in roots)

    def open(self, text: str) -> Path:
        """The adapter's folder that `text` names, with its links followed; nothing in it is read yet.

        Raises `PathRefusedError`, and `PathMissingError` where it is beneath a root and no folder.
        """
        _check(text)
        asked = self._here / text
        roots = [resolved for root in self._roots if (resolved := _followed(root)) is not None]
        if not any(asked.is_relative_to(root) for root in (*self._roots, *roots)):
            raise _outside()
        folder = _followed(asked)
        if folder is None or not _is_beneath(folder, roots):
            raise _outside()
        try:
            _check_files(folder, roots, _blobs_of(folder))
        except OSError as problem:  # such as a name that is too long for the file system
            why = (problem.strerror or type(problem).__name__).lower()
            raise PathRefusedError(f"it cannot be opened ({why}): name a folder that can") from None
        return folder


def _blobs_of(folder: Path) -> Path | None:
    """Where Hugging Face's cache keeps the files of `folder`, whose links were followed; None outside of it.

    There a snapshot CACHE/models--OWNER--NAME/snapshots/COMMIT holds links to files in ../../blobs
    (huggingface_hub, "Understand caching"). If a root is above the repository, so is it above the blobs; if a
    root is the snapshot, they are the one place outside of it. A link in the place of blobs leads nowhere,
    since what is followed then lies elsewhere.
    """
    for place in (folder, *folder.parents):
        if place.name == "snapshots" and place.parent.name.startswith("models--"):
            return place.parent / "blobs"
    return None


def _check_files(folder: Path, roots: Collection[Path], blobs: Path | None) -> None:
    """Refuse a folder that is not there, and one with a special file or a link that leads out."""
    if not folder.is_dir():
        raise PathMissingError("no folder of that name is there; give one that holds adapter_config.json")
    for name in _READ:
        file = _followed(folder / name)
        if file is None or not (_is_beneath(file, roots) or file.parent == blobs):
            raise _outside()
        if file.exists() and not file.is_file():
            raise PathRefusedError(f"{name} in it is not a file")


def _check(text: str) -> None:
    """Refuse what is no plain path of this machine."""
    if not text.strip() or len(text) > MAX_PATH or not text.isprintable():
        raise PathRefusedError(f"it is no path: give up to {MAX_PATH} printable characters")
    if _URL.match(text):
        raise PathRefusedError("it is a URL, and nothing is fetched: name a folder on the server")
    if ".." in re.split(r"[/\\]", text):
        raise PathRefusedError("it holds '..': name the folder itself")


def _outside() -> PathRefusedError:
    return PathRefusedError("it leads out of the folders that the server's setting adapter_roots names")


def _followed(path: Path) -> Path | None:
    """`path` with every link followed as far as it exists; None where that has no end."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return None


def _is_beneath(path: Path, roots: Iterable[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)
