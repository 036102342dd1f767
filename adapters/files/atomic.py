"""Write files and folders atomically: under a temporary name, flushed to the disk, then renamed.

A temporary name begins with a dot, ends in `.tmp` and is in the same folder as the final name, so the rename
is atomic. A killed process leaves its temporary files behind; a process that holds the folder's lock may
delete them. Replace or rename files and folders with these functions only, because they retry on Windows.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapters.files.full import naming

_SUFFIX = ".tmp"
_OLD = ".old"
_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds to wait between attempts at a rename or deletion that Windows may refuse for a moment: 1.6 in all.
"""

_unfinished: set[Path] = set()
"""Temporary paths that this process is writing now."""


@contextmanager
def staged_file(target: Path) -> Generator[Path]:
    """Yield a temporary path to write to. When the block ends, the temporary file replaces `target`; after an
    error it is deleted.
    """
    made = _make_parents(target.parent)
    temporary = _beside(target, _SUFFIX)
    _unfinished.add(temporary)
    try:
        with naming(target):
            yield temporary
            flush(temporary)
            replace_file(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _unmake(made)
        raise
    finally:
        _unfinished.discard(temporary)
    flush_folder(target.parent)


@contextmanager
def staged_folder(target: Path, *, replace: bool = False) -> Generator[Path]:
    """Yield an empty folder to fill. When the block ends, the folder is renamed to `target`; after an error
    it is deleted.

    If `replace` is True, an existing `target` is replaced, and restored after an error. Raises
    `FileExistsError` if `target` exists and `replace` is False, and `OSError` if the parent folder is not
    writable.
    """
    made = _make_parents(target.parent)
    temporary = _beside(target, _SUFFIX)
    _unfinished.add(temporary)
    try:
        if replace:
            _recover(target)
        temporary.mkdir()
        with naming(target):
            yield temporary
            flush_tree(temporary)
        if replace:
            _swap(temporary, target)
        elif target.exists():
            raise FileExistsError(
                f"the path {target} already exists; choose another path, or remove it first"
            )
        else:
            rename_folder(temporary, target)
    except BaseException:
        _discard(temporary)
        _unmake(made)
        raise
    finally:
        _unfinished.discard(temporary)
    flush_folder(target.parent)


def write_file(target: Path, data: bytes | str, mode: int = 0o666) -> None:
    """Write `data` to the file `target` atomically, text as UTF-8, and flush it to the disk before returning.

    From the moment of its creation, the file has the permissions `mode` as narrowed by the umask.
    """
    with staged_file(target) as temporary:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)


def remove_folder(folder: Path) -> None:
    """Delete `folder`. It is renamed first, so that a partly deleted folder never has its name."""
    temporary = _beside(folder, _SUFFIX)
    rename_folder(folder, temporary)
    flush_folder(folder.parent)
    shutil.rmtree(temporary)


def replace_file(source: Path, target: Path) -> None:
    """Rename the file `source` to `target`, replacing `target`. On Windows, retry while a program has either
    file open.
    """
    _patiently(lambda: source.replace(target))


def rename_folder(source: Path, target: Path) -> None:
    """Rename a folder. On Windows, retry while a program such as a virus scanner has one of its
    files open.
    """
    _patiently(lambda: source.rename(target))


def clear_leftovers(place: Path) -> None:
    """Delete unfinished files and folders that killed processes left in the folder `place`. Call it only if
    no other process can be writing there.
    """
    for path in place.glob(f".*{_SUFFIX}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def discard_at_exit(path: Path) -> Generator[None]:
    """While the block runs, let `discard_unfinished` delete the temporary file or folder `path`."""
    _unfinished.add(path)
    try:
        yield
    finally:
        _unfinished.discard(path)


def discard_unfinished() -> None:
    """Delete the temporary files and folders that this process is still writing. Call it only when the
    process is about to end.
    """
    for path in list(_unfinished):
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            path.unlink(missing_ok=True)


def flush_tree(folder: Path) -> None:
    """Flush all files in `folder` and its subfolders, and their directory entries, to the disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            flush_folder(path)
        else:
            flush(path)
    flush_folder(folder)


def flush(path: Path) -> None:
    """Flush a file's bytes to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Flush the directory entries of `folder` to the disk. Do nothing on Windows, which has no
    call for it.
    """
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(new: Path, target: Path) -> None:
    """Replace `target` by the folder `new`; on an error, leave `target` as it was."""
    old = _beside(target, _OLD)
    try:
        rename_folder(target, old)
    except FileNotFoundError:
        rename_folder(new, target)
        return
    try:
        rename_folder(new, target)
    except BaseException as problem:
        try:
            rename_folder(old, target)
        except OSError:
            problem.add_note(f"The folder {target} was moved to {old}; rename it back.")
        raise
    _discard(old)


def _discard(folder: Path) -> None:
    """Delete a folder that is no longer needed. If two attempts fail, leave the remaining files for a later
    clean-up.
    """
    with suppress(OSError):
        _patiently(lambda: shutil.rmtree(folder))
    shutil.rmtree(folder, ignore_errors=True)


def _recover(target: Path) -> None:
    """Clean up after a process that was killed while it replaced the folder `target`: restore the old folder
    if `target` is missing, else delete the old folder.
    """
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{12}}{re.escape(_OLD)}")
    for path in target.parent.iterdir():
        if not name.fullmatch(path.name):
            continue
        if target.exists():
            _discard(path)
        else:
            rename_folder(path, target)


def _patiently(change: Callable[[], object]) -> None:
    """Run `change`, a rename or a deletion, and retry it while Windows refuses it because a file is open. If
    the last attempt fails, raise its error.
    """
    for pause in _PAUSES if sys.platform == "win32" else ():
        try:
            change()
            return
        except PermissionError:
            time.sleep(pause)
    change()


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{os.urandom(6).hex()}{suffix}")


def _make_parents(folder: Path) -> list[Path]:
    """Create `folder` and its missing parents, and flush them to the disk. Returns the folders that were
    missing, deepest first.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in reversed(missing):
            flush_folder(path.parent)
    except BaseException:
        _unmake(missing)
        raise
    return missing


def _unmake(made: list[Path]) -> None:
    """Delete the folders `made`, which `_make_parents` has just created, unless other files have been written
    to them.
    """
    with suppress(OSError):
        for folder in made:
            if folder.exists():
                folder.rmdir()
