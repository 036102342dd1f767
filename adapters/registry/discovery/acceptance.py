"""Whether the numbers of an adapter that was merely found can be served, checked once while its files stay.

What the registry took in was checked then. Everything else is read here before it has a name: one that holds
NaN, changes nothing or is of a type that is not served would otherwise be refused at its first request.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from adapters.errors import FileRefusedError
from adapters.files.hashes import HashCache
from adapters.files.jsonfile import read_object, write_object
from adapters.lora.config import CONFIG_FILE
from adapters.lora.shape_check import ModelShape
from adapters.lora.tensorfile import WEIGHTS_FILE

_RULES = 1
"""Raised when what is refused changes, so that everything is checked again."""
_MAX_BYTES = 16 << 20


@dataclass(slots=True)
class CheckedNumbers:
    """Which folders' numbers were checked, kept in a file. A file that is lost costs time, never truth."""

    file: Path | None
    known: dict[str, str] = field(default_factory=dict[str, str])
    """Folder → the state of its files, and the base, that it was checked in."""
    _changed: bool = False

    @classmethod
    def open(cls, cache: Path | None) -> CheckedNumbers:
        """What the folder `cache` keeps; None keeps nothing."""
        if cache is None:
            return cls(None)
        known: dict[str, str] = {}
        with suppress(FileRefusedError):
            found = read_object(cache / "checked-adapters.json", _MAX_BYTES, FileRefusedError)
            known = {folder: state for folder, state in found.items() if isinstance(state, str)}
        return cls(cache / "checked-adapters.json", known)

    def check(
        self, folder: Path, shape: ModelShape, digest: str | None = None, hashes: HashCache | None = None
    ) -> None:
        """Read the numbers of the adapter in `folder`, unless its files are as they were.

        Raises `AdapterError` as `read_adapter` does, which gets `digest` and `hashes`.
        """
        key, state = str(folder.absolute()), _state(folder, shape, digest)
        if state is not None and self.known.get(key) == state:
            return
        from adapters.lora.weights import read_adapter

        read_adapter(folder, shape, digest=digest, hashes=hashes)
        if state is not None:
            self.known[key] = state
            self._changed = True

    def save(self) -> None:
        """Keep what was checked. A cache that cannot be written is written another time."""
        if self.file is None or not self._changed:
            return
        there = {folder: state for folder, state in self.known.items() if Path(folder).is_dir()}
        with suppress(OSError):
            write_object(self.file, there)
        self._changed = False


def _state(folder: Path, shape: ModelShape, digest: str | None) -> str | None:
    """Text that changes with the files and with what they have to fit; None if they cannot be looked at."""
    try:
        found = [(folder / name).stat() for name in (CONFIG_FILE, WEIGHTS_FILE)]
    except OSError:
        return None
    times = [(one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino) for one in found]
    text = repr((_RULES, digest, shape.family.names, shape.sizes, shape.weight, times))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
