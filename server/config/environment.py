"""Read the process's environment variables. No other module does; the rest of the code gets them as a
mapping.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path


def process_environment() -> MutableMapping[str, str]:
    """The environment of this process. Changes to it are visible to libraries that read `os.environ`."""
    return os.environ


def home_folder(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """The user's home folder: from `HOME` (`USERPROFILE` on Windows), or else from the user database."""
    environ = process_environment() if environ is None else environ
    named = environ.get("USERPROFILE" if platform == "win32" else "HOME")
    return Path(named) if named else Path.home()


def expand_home(path: str | Path, environ: Mapping[str, str] | None = None) -> Path:
    """Return `path` with a leading `~` or `~name` replaced by that user's home folder, if the user exists."""
    path = Path(path)
    if not path.parts or not path.parts[0].startswith("~"):
        return path
    if path.parts[0] == "~":
        return home_folder(environ).joinpath(*path.parts[1:])
    try:
        return path.expanduser()
    except RuntimeError:  # as a shell, which leaves the name of an unknown user as it is
        return path
