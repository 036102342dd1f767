"""Environments of tests, outside any checkout: made once, named by what went into them, kept while used.

Only the standard library, so that any Python of 3.11 or later can run it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

PYTHON = f"py{sys.version_info.major}.{sys.version_info.minor}"
KEPT = 2
"""Environments kept of a kind: the one in use and the last one before it."""
IN_USE = 24 * 3600
"""Seconds after its last start in which an environment is never removed."""


def default_cache() -> str:
    """Where the environments are unless told otherwise, by the XDG base directory specification."""
    return f"{os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'}/oneseek"


def print_line(line: str) -> None:
    """Stdout is for the answer alone."""
    print(f"oneseek: {line}", file=sys.stderr, flush=True)


@contextmanager
def alone(cache: Path) -> Generator[None]:
    """One at a time, so that what lies half made is nobody's."""
    with (cache / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print_line("another run is making an environment of the tests; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*command: str) -> str:
    """What the command wrote, or the end of it and an exit where it failed.

    Proxies, certificates and indexes are in the environment, which goes with it as it is.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        told = [line for line in done.stdout.splitlines() if not line.startswith("WARNING: Location")]
        raise SystemExit("\n".join([*told[-25:], f"oneseek: failed: {' '.join(command)}"]))
    return done.stdout


def distribution(requirement: str) -> str:
    """The normalised name at the start of a requirement (PEP 508, PEP 503)."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def move(part: Path, folder: Path) -> None:
    """Rename an environment; its scripts name their interpreter by the whole path."""
    before, after = str(part).encode(), str(folder).encode()
    for script in (part / "bin").iterdir():
        if script.is_file() and not script.is_symlink() and before in (content := script.read_bytes()):
            script.write_bytes(content.replace(before, after))
    part.rename(folder)


def keep_newest(cache: Path, pattern: str) -> None:
    """Of the environments whose names match, keep the last few and what may be in use."""
    made = [path for path in cache.glob(pattern) if path.suffix != ".part"]
    for old in sorted(made, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        if time.time() - old.stat().st_mtime > IN_USE:
            print_line(f"removing {old}")
            shutil.rmtree(old)
