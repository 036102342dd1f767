"""`oneseek backup` and `oneseek restore`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from server.__main__ import main

OLD = Path(__file__).parents[2] / "homes" / "format-1"


def test_a_home_is_backed_up_and_restored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, new, file = tmp_path / "home", tmp_path / "new", tmp_path / "backup.tar.gz"
    shutil.copytree(OLD, home)
    (home / "ledger" / "key.pem").chmod(0o600)
    assert main(["backup", str(file), "--home", str(home), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert main(["restore", str(file), "--home", str(new), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert made["ledger_last"] == done["ledger_last"]
    assert (made["versions"], done["versions"], done["changed"]) == (2, 2, True)
    assert main(["ledger", "verify", "--home", str(new)]) == 0


def test_what_is_no_backup_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "backup.tar.gz"
    file.write_bytes(b"text")
    assert main(["restore", str(file), "--home", str(tmp_path / "new")]) == 1
    error = capsys.readouterr().err
    assert str(file) in error
    assert len(error.splitlines()) == 1
    assert main(["restore", str(tmp_path / "missing"), "--home", str(tmp_path / "new")]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
