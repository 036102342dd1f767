"""`make mutants`' list of rules keeps up with the code, and its way of taking one out works."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.project.mutants.rules import ROOT, Rule, read_rules
from tests.project.mutants.run import try_rule

RULES = read_rules()


def test_names_are_unique() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_is_in_the_code_and_its_tests_exist(rule: Rule) -> None:
    text = (ROOT / rule.file).read_text(encoding="utf-8")
    assert rule.taken_out(text) != text
    ast.parse(rule.taken_out(text))
    assert rule.tests
    for test in rule.tests:
        path, _, function = test.partition("::")
        name = re.sub(r"\[.*", "", function)
        source = (ROOT / path).read_text(encoding="utf-8")
        assert not name or re.search(rf"def {name}\(", source), test


def test_a_rule_without_a_test_survives_and_one_with_a_test_does_not(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser): parser.addoption('--without-torch', action='store_true')\n"
    )
    (tmp_path / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "test_sums.py").write_text(
        "import sums\ndef test_sum(): assert sums.add(2, 3) == 5\ndef test_nothing(): pass\n"
    )
    rule = Rule(name="sums", file="sums.py", find="a + b", replace="a - b", tests=("test_sums.py::test_sum",))
    assert try_rule(tmp_path, rule).guarded
    assert not try_rule(tmp_path, replace(rule, tests=("test_sums.py::test_nothing",))).guarded
    assert not try_rule(tmp_path, replace(rule, tests=("test_sums.py::test_missing",))).guarded
    assert (tmp_path / "sums.py").read_text() == "def add(a, b):\n    return a + b\n"
    with pytest.raises(ValueError, match="0 times"):
        try_rule(tmp_path, replace(rule, find="a * b"))
