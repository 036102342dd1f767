"""docs/architecture.md lists every folder of code with what its `__init__` says, and nothing else."""

from __future__ import annotations

import ast
import difflib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "architecture.md"
PACKAGES = ("server", "routing", "adapters", "bench")


def sentence(init: Path) -> str:
    """What a folder's `__init__` says first, in one line."""
    text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def table(package: str) -> str:
    rows = ["| folder | holds |", "|---|---|"]
    for init in sorted((ROOT / package).rglob("__init__.py")):
        folder = init.parent.relative_to(ROOT).as_posix()
        rows.append(f"| `{folder}/` | {sentence(init)} |")
    return "\n".join(rows)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_is_listed_with_what_its_init_says(package: str) -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(
        rf"\| folder \| holds \|\n\|---\|---\|\n\| `{package}/`.*?(?=\n\n|\Z)", document, re.DOTALL
    )
    assert found, f"docs/architecture.md has no table for {package}/"
    now, wanted = found[0].rstrip("\n").splitlines(), table(package).splitlines()
    if now != wanted:
        patch = "\n".join(difflib.unified_diff(now, wanted, "is", "should be", lineterm=""))
        pytest.fail(patch, pytrace=False)
