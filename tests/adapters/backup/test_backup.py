"""Backups: what is restored is what was there, and nothing that is damaged is made or restored."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.backup.manifest import MANIFEST_FILE, BackupError
from adapters.backup.restore import restore_backup
from adapters.backup.write import write_backup
from adapters.ledger.ledger import Ledger
from adapters.ledger.record import Record
from adapters.registry.registry import Registry

HOMES = Path(__file__).resolve().parents[2] / "homes"


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of the parts that are backed up, locks left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for part in ("keys", "ledger", "registry")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file() and path.name not in (".lock", "ledger.lock")
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a ledger and two versions of one alias."""
    home = tmp_path / "home"
    shutil.copytree(HOMES / "format-1", home)
    (home / "ledger" / "key.pem").chmod(0o600)
    (home / "keys").mkdir()
    (home / "keys" / "hashed").write_text("…", encoding="utf-8")
    (home / "graphs").mkdir()
    (home / "graphs" / "large").write_bytes(b"built again")
    return home


@pytest.fixture
def backup(home: Path, tmp_path: Path) -> Path:
    return write_backup(home, tmp_path / "backup.tar.gz").file


def test_what_is_restored_is_what_was_there(home: Path, backup: Path, tmp_path: Path) -> None:
    done = restore_backup(backup, tmp_path / "new")
    assert done.changed
    assert done.contents.versions == 2
    assert tree(tmp_path / "new") == tree(home)
    assert not (tmp_path / "new" / "graphs").exists()
    assert not (tmp_path / "new" / ".restore").exists()


def test_the_restored_home_can_be_changed(backup: Path, tmp_path: Path) -> None:
    restore_backup(backup, tmp_path / "new")
    ledger = Ledger.open(tmp_path / "new" / "ledger")
    before = ledger.verify().count
    Registry(tmp_path / "new", ledger).rollback("tiny")
    ledger.append(Record(action="note", subject="tiny@v1.1"))
    assert ledger.verify().state == "intact"
    assert ledger.verify().count == before + 2


def test_keys_are_private_and_can_be_left_out(home: Path, backup: Path, tmp_path: Path) -> None:
    assert backup.stat().st_mode & 0o777 == 0o600
    restore_backup(backup, tmp_path / "new")
    assert (tmp_path / "new" / "ledger" / "key.pem").stat().st_mode & 0o777 == 0o600
    without = write_backup(home, tmp_path / "without.tar.gz", keys=False).file
    with tarfile.open(without) as tar:
        names = tar.getnames()
    assert "ledger/ledger.jsonl" in names
    assert not {"ledger/key.pem", "keys/hashed"} & set(names)
    assert restore_backup(without, tmp_path / "other").contents.versions == 2


def test_restoring_again_changes_nothing_and_ends_what_was_interrupted(backup: Path, tmp_path: Path) -> None:
    home = tmp_path / "new"
    restore_backup(backup, home)
    assert not restore_backup(backup, home).changed
    shutil.rmtree(home / "registry")  # as if the process had been killed before it was in its place
    assert restore_backup(backup, home).changed
    assert (home / "registry" / "tiny" / "v1.2").is_dir()


def test_another_registry_is_never_replaced(home: Path, backup: Path) -> None:
    Registry(home, Ledger.open(home / "ledger")).rollback("tiny")
    before = tree(home)
    with pytest.raises(BackupError, match="ledger"):
        restore_backup(backup, home)
    assert tree(home) == before


def test_a_backup_is_not_written_over(home: Path, backup: Path) -> None:
    data = backup.read_bytes()
    with pytest.raises(BackupError):
        write_backup(home, backup)
    assert backup.read_bytes() == data


def test_an_empty_home_is_not_backed_up(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="--home"):
        write_backup(tmp_path / "nothing", tmp_path / "backup.tar.gz")
    assert list(tmp_path.iterdir()) == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["registry/tiny/v1.1/adapter_model.safetensors", "ledger/ledger.jsonl"])
def test_a_damaged_home_is_not_backed_up(home: Path, name: str, tmp_path: Path) -> None:
    flip(home / name)
    with pytest.raises(BackupError):
        write_backup(home, tmp_path / "backup.tar.gz")
    assert not (tmp_path / "backup.tar.gz").exists()


Change = Callable[[list[tuple[tarfile.TarInfo, bytes]], dict[str, Any]], None]


def rewrite(backup: Path, change: Change) -> None:
    """Change the members of a backup, its manifest last."""
    with tarfile.open(backup) as tar:
        members = [(one, file.read()) for one in tar if (file := tar.extractfile(one)) is not None]
    fields = json.loads(members[0][1])
    change(members, fields)
    members[0] = members[0][0], json.dumps(fields).encode()
    with tarfile.open(backup, "w:gz") as tar:
        for one, data in members:
            one.size = len(data)
            tar.addfile(one, io.BytesIO(data))


def rename(name: str) -> Change:
    """Call a file of the registry `name`, in the archive and in its manifest."""

    def change(members: list[tuple[tarfile.TarInfo, bytes]], fields: dict[str, Any]) -> None:
        members[-1][0].name = fields["files"][-1]["path"] = name

    return change


def as_link(members: list[tuple[tarfile.TarInfo, bytes]], fields: dict[str, Any]) -> None:
    members[-1][0].type, members[-1][0].linkname = tarfile.SYMTYPE, "/etc/passwd"
    members[-1] = members[-1][0], b""


def one_more(members: list[tuple[tarfile.TarInfo, bytes]], fields: dict[str, Any]) -> None:
    members.append((tarfile.TarInfo("registry/more"), b"x"))


def one_less(members: list[tuple[tarfile.TarInfo, bytes]], fields: dict[str, Any]) -> None:
    members.pop()


def twice(members: list[tuple[tarfile.TarInfo, bytes]], fields: dict[str, Any]) -> None:
    members.append(members[-1])


def other_bytes(members: list[tuple[tarfile.TarInfo, bytes]], fields: dict[str, Any]) -> None:
    members[-1] = members[-1][0], members[-1][1][::-1]


def older_ledger(members: list[tuple[tarfile.TarInfo, bytes]], fields: dict[str, Any]) -> None:
    fields["ledger"]["last"] = "sha256:" + "0" * 64


def newer_format(members: list[tuple[tarfile.TarInfo, bytes]], fields: dict[str, Any]) -> None:
    fields["format"] = 2


def newer_home(members: list[tuple[tarfile.TarInfo, bytes]], fields: dict[str, Any]) -> None:
    fields["home_format"] = 99


def no_files(members: list[tuple[tarfile.TarInfo, bytes]], fields: dict[str, Any]) -> None:
    del fields["files"]


@pytest.mark.parametrize(
    "change",
    [
        rename("../outside"),
        rename("/tmp/outside"),
        rename("registry/../../outside"),
        rename("registry\\..\\outside"),
        rename("C:/outside/file"),
        rename("outside/file"),
        rename("registry"),
        as_link,
        one_more,
        one_less,
        twice,
        other_bytes,
        older_ledger,
        newer_format,
        newer_home,
        no_files,
    ],
)
def test_what_is_not_what_was_backed_up_is_refused_and_leaves_nothing(
    backup: Path, change: Change, tmp_path: Path
) -> None:
    rewrite(backup, change)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(BackupError):
        restore_backup(backup, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("data", [b"", b"text", gzip.compress(b"text"), gzip.compress(bytes(2048))])
def test_what_is_no_backup_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(BackupError):
        restore_backup(tmp_path / "file", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_backup_that_was_cut_off_is_refused(backup: Path, tmp_path: Path) -> None:
    data = backup.read_bytes()
    for part in (0.1, 0.5, 0.99):
        backup.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(BackupError):
            restore_backup(backup, tmp_path / "new")
        assert not (tmp_path / "new").exists()


def test_a_ledger_by_another_key_is_refused(home: Path, backup: Path, tmp_path: Path) -> None:
    other = Ledger.open(tmp_path / "other")
    other.append(Record(action="begin", subject="ledger"))
    with pytest.raises(BackupError, match="ledger"):
        restore_backup(backup, tmp_path / "new", public_key=tmp_path / "other" / "public.pem")
    assert restore_backup(backup, tmp_path / "new", public_key=home / "ledger" / "public.pem").changed


def test_the_manifest_comes_first(backup: Path) -> None:
    with tarfile.open(backup) as tar:
        first = tar.next()
    assert first is not None
    assert first.name == MANIFEST_FILE
