"""Check and split names of adapters: aliases, versions, full names (alias@version) and language codes. Opens
no files.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from adapters.errors import format_value

RESERVED = frozenset({"auto", "base", "default", "oneseek"})
"""Names that are not allowed as an alias, because they mean something else in a request's `model`."""

_ALIAS = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}", re.IGNORECASE | re.ASCII)
_VERSION = re.compile(r"v[0-9]{1,9}(?:[.-][a-z0-9]{1,16}){0,7}", re.IGNORECASE | re.ASCII)
_LANGUAGE = re.compile(r"[a-z]{2,3}", re.IGNORECASE | re.ASCII)
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_NUMBERS = re.compile(r"(?P<before>v(?:[0-9]+\.)*)(?P<last>[0-9]+)", re.IGNORECASE)
_FOLDER = re.compile(r"(?P<name>.+?)[-_.](?P<version>v[0-9]+(?:\.[0-9]+)*)(?:-(?P<language>[A-Z]{2}))?")


def alias(text: str) -> str:
    """Return `text` if it is a valid alias. Raises `ValueError` that says what is wrong.

    An alias has 1 to 128 characters: letters a-z in either case, digits, dots, dashes and underscores. It
    begins with a letter or a digit, is not a reserved name such as `base` or `auto`, and can be a folder's
    name on Windows. Aliases that differ only in case are the same.
    """
    if not _ALIAS.fullmatch(text):
        raise ValueError(
            f"{format_value(text)} is not an alias of an adapter: use up to 128 of a-z, 0-9, '.', '-', '_', "
            "beginning with a letter or digit"
        )
    if text.lower() in RESERVED:
        others = ", ".join(sorted(RESERVED))
        raise ValueError(f"the alias {format_value(text)} is reserved: choose an alias other than {others}")
    if text.endswith(".") or _DEVICES.fullmatch(text):
        raise ValueError(
            f"the alias {format_value(text)} cannot be a folder's name on Windows: choose another alias"
        )
    return text


def version(text: str) -> str:
    """Return `text` if it is a version such as v1.1 or v1.1-SV. Raises `ValueError` otherwise."""
    if not _VERSION.fullmatch(text):
        raise ValueError(
            f"{format_value(text)} is not a version of an adapter: write one such as v1, v1.1 or v1.1-SV"
        )
    return text


def language(text: str) -> str:
    """Return `text` in lower case if it is a language code such as sv. Raises `ValueError` otherwise."""
    if not _LANGUAGE.fullmatch(text):
        raise ValueError(
            f"{format_value(text)} is not a language code: write the two letters of ISO 639-1, such as sv"
        )
    return text.lower()


def split_name(text: str) -> tuple[str, str | None]:
    """Split `alias@version` into alias and version; an alias alone gives None as its version. Raises
    `ValueError` if either part is invalid.
    """
    before, at, after = text.partition("@")
    return alias(before), version(after) if at else None


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key for versions in natural order: v1.9 before v1.10, v1.1 before v1.1-SV."""
    pieces: list[str] = re.findall(r"[0-9]+|[a-z]+", text.lower())
    return tuple(
        (1, int(piece), "") if piece.isascii() and piece.isdigit() else (0, 0, piece) for piece in pieces
    )


def next_version(versions: Iterable[str]) -> str:
    """Return the first free version after the highest of `versions`: v1.2 after v1.1, v1.2-SV
    after v1.1-SV.
    """
    known = list(versions)
    if not known:
        return "v1.0"
    match = _NUMBERS.match(max(known, key=natural))
    assert match, "every version must begin with v and a number"
    taken = {version.lower() for version in known}
    before, after = match["before"], match.string[match.end() :]
    offered = (f"{before}{number}{after}" for number in itertools.count(int(match["last"]) + 1))
    return next(version for version in offered if version.lower() not in taken)


def tells_version(folder: str) -> bool:
    """True if a folder's name holds a version, as in `oneseek-7b-zero-v1.1`."""
    return _FOLDER.fullmatch(folder) is not None


def folder_title(folder: PurePath) -> str:
    """Return a readable name for a model's folder: the folder's own name, or the repository's name for a
    snapshot in Hugging Face's cache.

    A snapshot lies in CACHE/models--OWNER--NAME/snapshots/COMMIT (huggingface_hub, "Understand caching").
    """
    repository = folder.parent.parent
    if folder.parent.name == "snapshots" and repository.name.startswith("models--"):
        return repository.name.rpartition("--")[2]
    return folder.name


def from_folder(text: str) -> str:
    """Turn a folder's name into an alias: lower case, with dashes for characters that are not allowed.
    Returns an empty string if no allowed character is left.
    """
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:128].rstrip(".")


@dataclass(frozen=True, slots=True)
class FolderName:
    """Alias, version and language guessed from an adapter folder's name, for a folder that does not record
    them.
    """

    alias: str
    version: str
    language: str | None

    @classmethod
    def read(cls, text: str) -> FolderName:
        """Read a folder's name: `oneseek-7b-zero-v1.1-SV` gives `oneseek-7b-zero-sv`, v1.1, Swedish.

        A name without a version gives v1. Characters that an alias cannot hold become dashes. Raises
        `ValueError` if no valid alias is left.
        """
        match = _FOLDER.fullmatch(text)
        if match is None:
            return cls(alias(from_folder(text)), "v1", None)
        code = match["language"].lower() if match["language"] else None
        name = from_folder(match["name"])
        return cls(alias(f"{name}-{code}" if code else name), version(match["version"]), code)
