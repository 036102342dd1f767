"""docs/benchmarking.md and the workflow: their commands are ones that the suite takes, their fields those
it writes.
"""

from __future__ import annotations

import importlib
import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

import bench
from bench.cli.dispatch import VERBS
from bench.contenders.launch import CONTENDERS
from bench.figures.summary import GroupFigures, RunFigures
from bench.report.document import report
from bench.scenarios.catalogue import SCENARIOS
from bench.scenarios.scenario import ANSWER, LONG, SHORT
from bench.suite.tax import STATES
from bench.text.prompts import LengthSpread
from tests.bench.report.test_report import ABOUT, result

ROOT = Path(bench.__file__).parent.parent
PAGE = (ROOT / "docs" / "benchmarking.md").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "bench.yml").read_text(encoding="utf-8"))
LIMITS = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^\$ oneseek bench (.+)$", PAGE + LIMITS, re.MULTILINE)
GATE = [
    step["run"].split("-m bench ")[1]
    for step in WORKFLOW["jobs"]["compare"]["steps"]
    if "-m bench " in str(step)
]


@pytest.mark.parametrize("command", [*SHOWN, *GATE])
def test_every_command_is_taken(command: str) -> None:
    verb, *words = shlex.split(command)
    importlib.import_module(VERBS[verb].module).build_parser().parse_args(words)


def test_there_are_commands() -> None:
    assert len(SHOWN) >= 5
    assert len(GATE) == 1


def test_names_are_documented() -> None:
    for name in [*(s.name for s in SCENARIOS), *(s.name for s in STATES), *CONTENDERS]:
        assert f"`{name}`" in PAGE, name
    for verb in VERBS:
        assert re.search(rf"^\| `{verb}\b", PAGE, re.MULTILINE), verb


@pytest.mark.parametrize("spread", [SHORT, LONG, ANSWER])
def test_distributions_are_documented(spread: LengthSpread) -> None:
    assert f"{spread.median:g}" in PAGE
    assert f"(σ {spread.sigma:g}, {spread.least:,} to {spread.most:,})" in PAGE


def test_every_field_of_a_report_is_documented() -> None:
    found: dict[str, Any] = report(ABOUT, [result()], [], None)
    (scenario,) = found["scenarios"]
    names = [*found, *scenario, *scenario["load"], *scenario["client"][0], *scenario["requests"][0]]
    names += [field.name for kind in (GroupFigures, RunFigures) for field in fields(kind)]
    for name in names:
        assert f"`{name}`" in PAGE, name
