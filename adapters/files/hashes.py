"""Cache the SHA-256 of files by the file's path, size, times and inode.

The cache is one file in the home's folder `cache`, to which lines are appended. Incomplete lines, and lines
about an older state of a file, are ignored. If the cache is damaged, files are hashed again.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

MAX_LINES = 100_000
"""Number of lines after which the cache file is emptied and begun again."""
_FIELDS = ("size", "mtime_ns", "ctime_ns", "inode")

State = tuple[int, ...]
"""Size, mtime, ctime and inode of a file, by which a change of the file is noticed."""


def hash_file(home: Path) -> Path:
    """Return the path of the hash cache in OneSeek's home."""
    return home / "cache" / "adapter-hashes.jsonl"


def file_state(status: os.stat_result) -> State:
    """Return the size, mtime, ctime and inode of a file; at least one of them changes whenever the file does.
    ctime is included because rsync can keep size and mtime.
    """
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


class HashCache:
    """Cache of SHA-256 hashes in the file `path`. Safe to use from any thread and from several processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, tuple[State, str]] | None = None
        self._lines = 0

    def get(self, file: Path) -> str | None:
        """Return the cached SHA-256 of `file` in hex; None if it is not cached for the file's
        present state.
        """
        try:
            state = file_state(file.stat())
        except OSError:
            return None
        with self._lock:
            found = self._read().get(_key(file))
        return found[1] if found is not None and found[0] == state else None

    def put(self, file: Path, state: State, sha256: str) -> None:
        """Store the SHA-256 that `file` has in the given state. If the cache file is not writable, the hash
        is kept in memory only.
        """
        line = json.dumps({"path": _key(file), **dict(zip(_FIELDS, state, strict=True)), "sha256": sha256})
        with self._lock:
            known = self._read()
            if known.get(_key(file)) == (state, sha256):
                return
            known[_key(file)] = state, sha256
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                mode = "ab" if self._lines < MAX_LINES else "wb"
                self._lines = self._lines + 1 if mode == "ab" else 1
                with self._path.open(mode) as out:
                    out.write(b"\n" + line.encode())  # after a torn line, this one is whole
            except OSError:
                return

    def _read(self) -> dict[str, tuple[State, str]]:
        if self._known is None:
            self._known = {}
            try:
                lines = self._path.read_bytes().splitlines()
            except OSError:
                lines = []
            self._lines = len(lines)
            for line in lines:
                entry = _entry(line)
                if entry is not None:
                    self._known[entry[0]] = entry[1:]
        return self._known


def _key(file: Path) -> str:
    return os.path.realpath(file)


def _entry(line: bytes) -> tuple[str, State, str] | None:
    try:
        entry = json.loads(line)
        path, sha256 = entry["path"], entry["sha256"]
        state = tuple(entry[name] for name in _FIELDS)
    except (ValueError, KeyError, TypeError):
        return None
    whole = isinstance(sha256, str) and len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")
    sizes = all(type(number) is int for number in state)
    return (path, state, sha256) if whole and sizes and isinstance(path, str) else None
