"""The one place that reads the process's environment; everything else is given what it needs of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path


def process_environment() -> MutableMapping[str, str]:
    """The variables of this process; what is set there is what libraries see that read it themselves."""
    return os.environ


def ends_quietly(environ: Mapping[str, str] | None = None) -> bool:
    """Whether `make serve` started this process, which reports every exit code but 0 as an error."""
    return "UNDER_MAKE" in (process_environment() if environ is None else environ)


def home_folder(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """The user's folder: `HOME`, or `USERPROFILE` on Windows, else what the system has for the user."""
    environ = process_environment() if environ is None else environ
    named = environ.get("USERPROFILE" if platform == "win32" else "HOME")
    return Path(named) if named else Path.home()


def expand_home(path: str | Path, environ: Mapping[str, str] | None = None) -> Path:
    """`path` with the user's folder for a leading `~`, and that of `name` for `~name`."""
    path = Path(path)
    if not path.parts or not path.parts[0].startswith("~"):
        return path
    if path.parts[0] == "~":
        return home_folder(environ).joinpath(*path.parts[1:])
    return path.expanduser()
