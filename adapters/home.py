"""OneSeek's home: the folder of a server's state, `$ONESEEK_HOME`, and the number of its format.

The file `format` in the home holds the number. It is written when the home is made or first written to. A
home without this file has format 1, because older releases did not write it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from adapters.errors import FileRefusedError
from adapters.files.atomic import write_file
from adapters.files.regular import read_regular
from adapters.numerals import parse_integer

FORMAT = 1
"""Current format number of OneSeek's home. Increase it if an older OneSeek would misread a newer registry,
ledger or keys.
"""
FORMAT_FILE = "format"
_MAX_BYTES = 64


class HomeError(FileRefusedError):
    """The format of OneSeek's home is not supported or cannot be read. Nothing in the home was changed."""


def read_format(home: Path) -> int:
    """Return the format number of `home`; 1 if it has no file `format`. Raises `HomeError` if that file holds
    no number or cannot be read.
    """
    path = home / FORMAT_FILE
    try:
        text = read_regular(path, _MAX_BYTES).decode("ascii", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return 1
    except OSError as problem:
        raise HomeError(
            path,
            f"the file cannot be read ({problem.strerror})",
            "Check the permissions of the file, which holds the home's format.",
        ) from problem
    with suppress(ValueError):
        if (number := parse_integer(text)) >= 1:
            return number
    raise HomeError(
        path,
        "the file does not hold the format number of OneSeek's home, an integer of at least 1",
        "Restore the file from a backup. If only releases without this file wrote the folder, delete it.",
        field="format",
        value=text,
    )


def check_home(home: Path) -> None:
    """Raise `HomeError` if `home` is in a newer format than this OneSeek reads."""
    if (found := read_format(home)) > FORMAT:
        from adapters.version import oneseek_version

        raise HomeError(
            home,
            f"the home has format {found}, but OneSeek {oneseek_version()} reads up to format {FORMAT}",
            "Install a newer OneSeek, or name another folder with --home PATH (ONESEEK_HOME).",
        )


def mark_home(home: Path) -> None:
    """Write the file `format` if `home` has none. Raises the errors of `check_home`.

    If the home is not writable, do nothing. The first command that has to write there reports the error.
    """
    check_home(home)
    if not (home / FORMAT_FILE).exists():
        with suppress(OSError):
            write_file(home / FORMAT_FILE, f"{FORMAT}\n")
