"""What docs/ledger.md says can be done by hand can be."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.ledger import Ledger
from tests.adapters.ledger.conftest import record

DOCUMENT = (Path(__file__).parents[3] / "docs" / "ledger.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger.open(tmp_path / "ledger")
    for number in range(6):
        ledger.append(record(number))
    return ledger


def run(ledger: Ledger, command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ledger.folder, capture_output=True, text=True, check=False)


def test_python_verifies_it(ledger: Ledger) -> None:
    (script,) = blocks("python")
    assert run(ledger, [sys.executable, "-c", script]).returncode == 0
    file = ledger.folder / "ledger.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"seed":3', b'"seed":4'))
    assert run(ledger, [sys.executable, "-c", script]).returncode != 0


@pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("bash", "sed", "sha256sum", "base64", "openssl")),
    reason="needs a shell with GNU's tools and openssl",
)
def test_a_shell_verifies_it(ledger: Ledger) -> None:
    chain, signature = blocks("sh")
    fourth, last = run(ledger, ["bash", "-ec", chain]).stdout.splitlines()
    entries = list(ledger.entries())
    assert f"sha256:{fourth.split()[0]}" == entries[4].previous
    head = json.loads((ledger.folder / "head.json").read_bytes())
    assert f"sha256:{last.split()[0]}" == head["hash"]
    assert "Verified Successfully" in run(ledger, ["bash", "-ec", signature]).stdout
