"""OneSeek's home: the folder of a server's state, `$ONESEEK_HOME`, and the version of its layout.

The file `format` in the home holds this version number. It is written when the home is made or first written
to. A home without this file has version 1, because older releases did not write it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from adapters.errors import FileRefusedError
from adapters.files.atomic import write_file
from adapters.files.regular import read_regular
from adapters.numerals import parse_integer

FORMAT = 1
"""Current version of the home folder's layout. Increase it if an older OneSeek would misread a newer
registry, ledger or keys.
"""
FORMAT_FILE = "format"
_MAX_BYTES = 64


class HomeError(FileRefusedError):
    """The home folder has a layout version that this OneSeek does not support, or that cannot be read.
    Nothing in the folder was changed.
    """


def read_format(home: Path) -> int:
    """Return the version of the layout of the folder `home`; 1 if it has no file `format`. Raises `HomeError`
    if that file holds no number or cannot be read.
    """
    path = home / FORMAT_FILE
    try:
        text = read_regular(path, _MAX_BYTES).decode("ascii", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return 1
    except OSError as problem:
        reason = f"the file cannot be read ({problem.strerror})"
        raise HomeError(
            path,
            reason,
            "Check the permissions of this file, which holds the version of the home folder's layout.",
        ) from problem
    with suppress(ValueError):
        if (number := parse_integer(text)) >= 1:
            return number
    remedy = "Restore the file from a backup. If only releases without this file wrote the folder, delete it."
    raise HomeError(
        path,
        "the file must hold the version of the home folder's layout, an integer of at least 1",
        remedy,
        field="format",
        value=text,
    )


def check_home(home: Path) -> None:
    """Raise `HomeError` if the folder `home` has a newer layout than this OneSeek can read."""
    if (found := read_format(home)) > FORMAT:
        from adapters.version import oneseek_version

        reason = (
            f"the layout of the home folder has format {found}, but OneSeek {oneseek_version()} reads only "
            f"up to format {FORMAT}"
        )
        remedy = "Install a newer OneSeek, or name another folder with --home PATH (ONESEEK_HOME)."
        raise HomeError(home, reason, remedy)


def mark_home(home: Path) -> None:
    """Write the layout version to the file `format` if `home` has no such file. Raises the errors of
    `check_home`.

    If the home is not writable, do nothing. The first command that has to write there reports the error.
    """
    check_home(home)
    if not (home / FORMAT_FILE).exists():
        with suppress(OSError):
            write_file(home / FORMAT_FILE, f"{FORMAT}\n")
