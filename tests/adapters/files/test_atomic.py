"""A replacement that fails at any step on disk leaves the old state or the new one, and nothing beside it."""

from __future__ import annotations

import ast
import os
import shutil
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.files import atomic

ROOT = Path(__file__).parents[3]
OLD, NEW = {"a": b"old", "only-old": b"1"}, {"a": b"new", "only-new": b"2"}
STEPS = ("mkdir", "rename", "replace", "fsync", "open")


class InjectedError(OSError):
    """The failure of one step."""


class Disk:
    """Fails at chosen calls of the operating system, counted from 1; `names` lists the calls so far."""

    def __init__(self, patch: pytest.MonkeyPatch, failing: Callable[[int, str], bool]) -> None:
        self.names: list[str] = []
        self.failed: list[str] = []
        self._failing = failing
        for name in STEPS:
            patch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            self.names.append(name)
            if self._failing(len(self.names), name):
                self.failed.append(name)
                raise InjectedError(5, f"step {len(self.names)}, {name}")
            return call(*arguments, **options)

        return step


def folder_of(path: Path) -> dict[str, bytes] | None:
    return {file.name: file.read_bytes() for file in path.iterdir()} if path.is_dir() else None


def fill(path: Path, contents: dict[str, bytes]) -> None:
    for name, data in contents.items():
        (path / name).write_bytes(data)


def replace_folder(target: Path) -> None:
    with atomic.staged_folder(target, replace=True) as folder:
        fill(folder, NEW)


def replace_file(target: Path) -> None:
    atomic.write_file(target, b"new")


def before(place: Path, *, folder: bool, present: bool) -> Path:
    """A fresh `place` with what stands there before a replacement."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    target = place / "target"
    if present and folder:
        target.mkdir()
        fill(target, OLD)
    elif present:
        target.write_bytes(b"old")
    return target


def content(target: Path) -> object:
    return folder_of(target) if target.is_dir() else target.read_bytes() if target.exists() else None


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize("folder", [True, False])
def test_one_failure_at_any_step_leaves_old_or_new_alone(tmp_path: Path, folder: bool, present: bool) -> None:
    failed: list[str] = []
    old, new = (OLD, NEW) if folder else (b"old", b"new")
    for step in range(1, 100):
        target = before(tmp_path / "place", folder=folder, present=present)
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, lambda number, _, step=step: number == step)
            with suppress(InjectedError):
                (replace_folder if folder else replace_file)(target)
        assert content(target) in ((old if present else None), new), disk.failed
        assert [path.name for path in target.parent.iterdir()] == (["target"] if target.exists() else [])
        if not disk.failed:
            assert content(target) == new
            break
        failed += disk.failed
    renames = failed.count("rename") + failed.count("replace")
    assert renames == (2 if folder else 1)  # the old one away, the new one in
    assert "fsync" in failed


@pytest.mark.parametrize("first", [1, 2])
def test_renames_that_fail_for_good_lose_nothing_and_the_next_writer_recovers(
    tmp_path: Path, first: int
) -> None:
    """From the `first` rename on all fail, so also the one that would put the old folder back."""
    target = before(tmp_path / "place", folder=True, present=True)
    neighbour = target.with_name("target.x")
    neighbour.mkdir()
    renames = 0

    def failing(_: int, name: str) -> bool:
        nonlocal renames
        renames += name == "rename"
        return name == "rename" and renames >= first

    with pytest.MonkeyPatch.context() as patch:
        Disk(patch, failing)
        with pytest.raises(InjectedError) as caught:
            replace_folder(target)
    left = [path for path in target.parent.iterdir() if path != neighbour]
    assert [folder_of(path) for path in left] == [OLD]
    if first == 2:
        assert any(str(left[0]) in note for note in caught.value.__notes__)
    with pytest.raises(RuntimeError), atomic.staged_folder(target, replace=True):
        raise RuntimeError
    assert content(target) == OLD
    replace_folder(target)
    assert content(target) == NEW
    assert {path.name for path in target.parent.iterdir()} == {"target", neighbour.name}


@pytest.mark.parametrize("folder", [True, False])
def test_a_writer_that_fails_leaves_none_of_the_folders_that_it_made(tmp_path: Path, folder: bool) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    target = kept / "a" / "b" / "target"
    with suppress(InjectedError), (atomic.staged_folder if folder else atomic.staged_file)(target) as path:
        (path / "part" if folder else path).write_bytes(b"half")
        raise InjectedError(28, "full")
    assert list(tmp_path.rglob("*")) == [kept]


@pytest.mark.parametrize("folder", [True, False])
def test_folders_that_cannot_all_be_made_leave_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    for step in range(1, 20):
        with monkeypatch.context() as patch:
            disk = Disk(patch, lambda number, _, step=step: number == step)
            with suppress(InjectedError):
                (replace_folder if folder else replace_file)(tmp_path / "a" / "b" / "target")
        if not disk.failed:
            return
        if content(tmp_path / "a" / "b" / "target") is None:
            assert not list(tmp_path.rglob("*")), disk.names
        else:
            shutil.rmtree(tmp_path / "a")


def test_the_old_folder_of_a_longer_name_is_left_to_its_own_writer(tmp_path: Path) -> None:
    other = tmp_path / ".v1.0.0123456789ab.old"
    other.mkdir()
    with atomic.staged_folder(tmp_path / "v1", replace=True):
        pass
    assert other.is_dir()
    assert (tmp_path / "v1").is_dir()


def test_without_replace_a_folder_that_is_there_stays(tmp_path: Path) -> None:
    target = before(tmp_path / "place", folder=True, present=True)
    with pytest.raises(FileExistsError), atomic.staged_folder(target) as folder:
        fill(folder, NEW)
    assert content(target) == OLD
    assert len(list(target.parent.iterdir())) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="modes are of POSIX")
def test_a_secret_file_is_never_open_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    fsync = os.fsync

    def look(handle: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", look)
    atomic.write_file(tmp_path / "key", b"secret", 0o600)
    assert modes[0] == 0o600
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    atomic.write_file(tmp_path / "file", "å\n")
    assert (tmp_path / "file").read_bytes() == "å\n".encode()


def test_a_folder_waits_for_windows_at_both_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "sys", SimpleNamespace(platform="win32"))
    target = before(tmp_path / "place", folder=True, present=True)
    rename, calls = os.rename, 0

    def scanned(source: Path, place: Path) -> None:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise PermissionError(13, "The process cannot access the file")
        rename(source, place)

    monkeypatch.setattr(os, "rename", scanned)
    replace_folder(target)
    assert content(target) == NEW
    assert calls == 4


def test_nothing_else_moves_files_or_folders() -> None:
    """Whoever renames by itself skips the retry. `staged_file` and `staged_folder` serve all of them."""
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
        for place in ("server", "adapters", "routing")
        for path in sorted((ROOT / place).rglob("*.py"))
        if path != Path(atomic.__file__)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and moves(node)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("os.replace(a, b)", True),
        ("os.rename(a, b)", True),
        ("shutil.move(a, b)", True),
        ("path.rename(b)", True),
        ("path.replace(b)", True),
        ("tempfile.mkstemp()", True),
        ("tempfile.mkdtemp()", True),
        ("text.replace(a, b)", False),
        ("dataclasses.replace(a, b=1)", False),
        ("time.replace(tzinfo=b)", False),
        ("self._served.replace(adapter)", False),
    ],
)
def test_a_move_is_recognised(code: str, expected: bool) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert moves(call) is expected


def moves(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute):
        return False
    owner, name = ast.unparse(call.func.value), call.func.attr
    if owner in ("os", "shutil", "tempfile"):
        return name in ("rename", "renames", "replace", "move", "mkstemp", "mkdtemp")
    one = len(call.args) == 1 and not call.keywords
    return one and (name == "rename" or (name == "replace" and not owner.endswith(("served", "dataclasses"))))
