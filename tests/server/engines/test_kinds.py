from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from server.config.settings import EngineOptions
from server.engines.kinds import AUTO, ENGINES, EngineKind, choose_engine
from server.engines.suitability import Suitability

ROOT = Path(__file__).resolve().parents[3]


def test_the_setting_takes_every_engine_and_no_other() -> None:
    assert set(get_args(get_type_hints(EngineOptions)["kind"])) == {AUTO, *ENGINES}


def test_no_engine_is_told_apart_by_its_name() -> None:
    """What differs between engines is a field of `EngineInfo` or an entry of the table."""
    found: list[str] = []
    for package in ("server", "routing", "adapters"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Compare):
                    parts = (node.left, *node.comparators)
                    if any(isinstance(part, ast.Constant) and part.value in ENGINES for part in parts):
                        found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_the_table_loads_no_engine() -> None:
    heavy = "{'onnxruntime', 'onnx', 'vllm', 'torch'}"
    code = f"import sys, server.engines.kinds; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_first_that_suits_is_chosen_and_says_what_was_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed = Suitability(False, "2 GPUs, but no driver", "install the driver")
    first = EngineKind("first", lambda _: passed, ENGINES["embedded"].open)
    last = EngineKind("last", lambda _: Suitability(True), ENGINES["embedded"].open)
    monkeypatch.setattr("server.engines.kinds.ENGINES", {kind.name: kind for kind in (first, last)})
    choice = choose_engine(AUTO, {})
    assert choice.kind is last
    assert (choice.reason, choice.warning) == ("2 GPUs, but no driver", "install the driver")
