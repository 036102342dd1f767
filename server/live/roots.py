"""Limits the folders from which clients may load adapters to those below configured roots, links resolved.

A path outside the roots is refused before any file system access. A link that leads outside is refused with
the same message, so that answers reveal nothing about the host.
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
"""Maximum length of a path in characters."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_READ = (CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE, CARD_FILE)


class PathRefusedError(ValueError):
    """A client's path is refused. The message reveals nothing about the host."""


class PathMissingError(PathRefusedError):
    """The path is below a root, but there is no such folder."""


class Roots:
    """The folders from which clients may load adapters. Relative roots and paths are relative to `here`."""

    def __init__(self, roots: Iterable[Path], here: Path | None = None) -> None:
        self._here = (here or Path.cwd()).absolute()
        self._roots = tuple(self._here / root for root in roots)

    def open(self, text: str) -> Path:
        """Resolve `text` to an adapter's folder, following links. Does not read the folder's files.

        Raises `PathRefusedError`, and `PathMissingError` if the path is below a root but is not a folder.
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
            raise PathRefusedError(
                f"the folder cannot be opened ({why}); check the path and its permissions"
            ) from None
        return folder


def _blobs_of(folder: Path) -> Path | None:
    """Return the folder where Hugging Face's cache keeps the files of `folder` (resolved); None outside a
    cache.

    In the cache, a snapshot's folder CACHE/models--OWNER--NAME/snapshots/COMMIT holds links to files in
    CACHE/models--OWNER--NAME/blobs (huggingface_hub, "Understand caching"). If a root is the snapshot's
    folder, blobs is the only folder outside the root that its links may lead to. If blobs is itself a link,
    the files resolve to another folder and are refused.
    """
    for place in (folder, *folder.parents):
        if place.name == "snapshots" and place.parent.name.startswith("models--"):
            return place.parent / "blobs"
    return None


def _check_files(folder: Path, roots: Collection[Path], blobs: Path | None) -> None:
    """Refuse a folder that does not exist, or that holds a special file or a link to a place outside the
    roots.
    """
    if not folder.is_dir():
        raise PathMissingError("the folder does not exist; use a folder that holds adapter_config.json")
    for name in _READ:
        file = _followed(folder / name)
        if file is None or not (_is_beneath(file, roots) or file.parent == blobs):
            raise _outside()
        if file.exists() and not file.is_file():
            raise PathRefusedError(
                f"the folder's {name} is not a regular file; replace it with a regular file"
            )


def _check(text: str) -> None:
    """Raise `PathRefusedError` for a client's path that is empty, too long, not printable, a URL, or contains
    `..`.
    """
    if not text.strip() or len(text) > MAX_PATH or not text.isprintable():
        raise PathRefusedError(
            f"the path is empty, too long or not printable; use up to {MAX_PATH} printable characters"
        )
    if _URL.match(text):
        raise PathRefusedError("the path of the adapter is a URL; use the path of a folder on the server")
    if ".." in re.split(r"[/\\]", text):
        raise PathRefusedError("the path contains '..'; write the folder's path without it")


def _outside() -> PathRefusedError:
    return PathRefusedError(
        "the path is outside the folders of the server's setting adapter_roots; use a folder in one of them"
    )


def _followed(path: Path) -> Path | None:
    """Return `path` with all existing links resolved; None if the links form a loop."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return None


def _is_beneath(path: Path, roots: Iterable[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)
