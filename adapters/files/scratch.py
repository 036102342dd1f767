"""A temporary folder for one process's unfinished work, deleted when its `with` block ends."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from filelock import FileLock, Timeout

from adapters.files.atomic import discard_at_exit

_LOCK = ".lock"


@contextmanager
def scratch_folder(place: Path) -> Generator[Path]:
    """Yield a new empty folder inside the folder `place`, and delete the new folder when the block ends. If
    `place` is then empty, delete `place` too.

    Folders of killed processes are deleted first; a lock file beside each folder shows whether it is in use.
    The block may begin in one thread and end in another. Raises `OSError` if `place` is not writable.
    """
    place.mkdir(parents=True, exist_ok=True)
    _clear(place)
    folder = place / token_hex(8)
    lock = FileLock(f"{folder}{_LOCK}", thread_local=False)
    with discard_at_exit(folder):
        lock.acquire()
        try:
            folder.mkdir()
            yield folder
        finally:
            _remove(folder, lock)
            with suppress(OSError):
                place.rmdir()


def _clear(place: Path) -> None:
    for path in place.glob(f"*{_LOCK}"):
        lock = FileLock(path, timeout=0)
        with suppress(Timeout, OSError):
            lock.acquire()
            _remove(path.with_suffix(""), lock)


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    with suppress(OSError):
        Path(lock.lock_file).unlink(missing_ok=True)
