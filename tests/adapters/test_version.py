"""Which code made an entry."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from adapters.version import commit, oneseek_version


def git(folder: Path, *arguments: str) -> str:
    known = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *known, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")
def test_a_checkout_names_its_commit_and_whether_files_differ(tmp_path: Path) -> None:
    assert commit(tmp_path) is None
    commit.cache_clear()
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1", encoding="ascii")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    git(tmp_path, "tag", "v1")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit(tmp_path) == head
    commit.cache_clear()
    (tmp_path / "file").write_text("2", encoding="ascii")
    assert commit(tmp_path) == f"{head}-dirty"


def test_there_is_always_a_version() -> None:
    assert oneseek_version()
