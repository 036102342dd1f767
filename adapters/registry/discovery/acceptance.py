"""Check the weights of adapters that were found outside the registry, once for each state of their files.

The registry checks an adapter when it is added. All other adapters are checked here before they are served.
Otherwise an adapter that holds NaN, changes nothing or has an unsupported type would fail at its first
request.
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
"""Version of the checks. Increase it when the checks change, so that every adapter is checked again."""
_MAX_BYTES = 16 << 20


@dataclass(slots=True)
class CheckedNumbers:
    """Remembers in a file which folders' adapter weights were checked. If the file is lost, the checks run
    again.
    """

    file: Path | None
    known: dict[str, str] = field(default_factory=dict[str, str])
    """Maps each folder to a hash of the state that its files and the base had when the weights were
    checked.
    """
    _changed: bool = False

    @classmethod
    def open(cls, cache: Path | None) -> CheckedNumbers:
        """Load the results of earlier checks from the folder `cache`. None: keep results in memory only."""
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
        """Check the weights of the adapter in `folder`, unless its files are unchanged since the last check.

        Passes `digest` and `hashes` to `read_adapter`. Raises the same `AdapterError`.
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
        """Save the results of the checks to the file. If the file cannot be written, the next call tries
        again.
        """
        if self.file is None or not self._changed:
            return
        there = {folder: state for folder, state in self.known.items() if Path(folder).is_dir()}
        with suppress(OSError):
            write_object(self.file, there)
        self._changed = False


def _state(folder: Path, shape: ModelShape, digest: str | None) -> str | None:
    """Return a hash of the state of the adapter's files and of the base. None if the files cannot be read."""
    try:
        found = [(folder / name).stat() for name in (CONFIG_FILE, WEIGHTS_FILE)]
    except OSError:
        return None
    times = [(one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino) for one in found]
    text = repr((_RULES, digest, shape.family.names, shape.sizes, shape.weight, times))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
