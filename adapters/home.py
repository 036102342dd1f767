"""The folder of a server's state, `$ONESEEK_HOME`, and the number of the format that it is in.

The number stands in the file `format`, written when the home is made or first written to. A home without the
file is of format 1, which is what releases before the file wrote.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from adapters.errors import FileRefusedError
from adapters.files.atomic import write_file
from adapters.files.regular import read_regular
from adapters.numerals import parse_integer

FORMAT = 1
"""Raised when an older OneSeek would misread the registry, the ledger or the keys of a newer one."""
FORMAT_FILE = "format"
_MAX_BYTES = 64


class HomeError(FileRefusedError):
    """The home is in a format that this OneSeek does not read; nothing in it was changed."""


def read_format(home: Path) -> int:
    """The number of the format of `home`. Raises `HomeError` if the file holds none or cannot be read."""
    path = home / FORMAT_FILE
    try:
        text = read_regular(path, _MAX_BYTES).decode("ascii", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return 1
    except OSError as problem:
        reason = f"cannot be read ({problem.strerror})"
        raise HomeError(path, reason, "Check who may read it.") from problem
    with suppress(ValueError):
        if (number := parse_integer(text)) >= 1:
            return number
    remedy = "Restore the file from a backup; if only releases before it wrote this folder, delete it."
    raise HomeError(path, "does not hold the number of a format", remedy, field="format", value=text)


def check_home(home: Path) -> None:
    """Raise `HomeError` if `home` is in a newer format than this OneSeek reads."""
    if (found := read_format(home)) > FORMAT:
        from adapters.version import oneseek_version

        reason = f"has format {found}, and OneSeek {oneseek_version()} reads up to format {FORMAT}"
        remedy = "Install a newer OneSeek, or name another folder with --home PATH (ONESEEK_HOME)."
        raise HomeError(home, reason, remedy)


def mark_home(home: Path) -> None:
    """Write the number of the format if `home` has none. Raises as `check_home`.

    A home that cannot be written to stays as it is: whoever has to write there reports it.
    """
    check_home(home)
    if not (home / FORMAT_FILE).exists():
        with suppress(OSError):
            write_file(home / FORMAT_FILE, f"{FORMAT}\n")
