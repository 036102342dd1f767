"""One digest of an old ledger's folder, which a shell computes as well."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from adapters.errors import LedgerError
from adapters.pth import provenance
from adapters.pth.provenance import provenance_digest

COMMAND = "find . -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is of GNU")
def test_a_shell_computes_the_same(tmp_path: Path) -> None:
    for name in ("b/2.json", "a b.json", "Å.json", "b-1.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    shown = subprocess.run(COMMAND, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert provenance_digest(tmp_path) == f"sha256:{shown.stdout.split()[0]}"


def test_a_file_stands_for_itself_and_links_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    before = provenance_digest(tmp_path / "old")
    (tmp_path / "one.json").write_bytes(b"1")
    (tmp_path / "old" / "link").symlink_to(tmp_path / "one.json")
    assert provenance_digest(tmp_path / "old") == before
    assert provenance_digest(tmp_path / "one.json") == f"sha256:{hashlib.sha256(b'1').hexdigest()}"


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LedgerError, match="nowhere"):
        provenance_digest(tmp_path / "nowhere")
    (tmp_path / "a").write_bytes(b"")
    monkeypatch.setattr(provenance, "MAX_FILES", 0)
    with pytest.raises(LedgerError, match=r"\b0 files"):
        provenance_digest(tmp_path)
