"""The only module that reads the process's environment; it passes mappings to the rest of the code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path


def process_environment() -> MutableMapping[str, str]:
    """The live environment of this process. Changes are visible to libraries that read `os.environ`."""
    return os.environ


def home_folder(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """The user's home folder: `HOME` (`USERPROFILE` on Windows), else the one from the user database."""
    environ = process_environment() if environ is None else environ
    named = environ.get("USERPROFILE" if platform == "win32" else "HOME")
    return Path(named) if named else Path.home()


def expand_home(path: str | Path, environ: Mapping[str, str] | None = None) -> Path:
    """`path` with a leading `~` or `~name` replaced by that user's home folder, if there is such a user."""
    path = Path(path)
    if not path.parts or not path.parts[0].startswith("~"):
        return path
    if path.parts[0] == "~":
        return home_folder(environ).joinpath(*path.parts[1:])
    try:
        return path.expanduser()
    except RuntimeError:  # as a shell, which leaves the name of an unknown user as it is
        return path
