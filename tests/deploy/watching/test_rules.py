"""The shipped rules: promtool's judgement, a case for each alert, a text for each, and metrics that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.__main__ import main
from tests.deploy.watching.watched import SHIPPED, quick
from tests.server.metrics.test_metrics import documented

OPERATING = SHIPPED.parents[1] / "docs" / "operating.md"


def rules(name: str) -> list[dict[str, Any]]:
    document = yaml.safe_load((SHIPPED / "rules" / name).read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts.yml")}


def commands() -> list[str]:
    """The commands that the page shows."""
    return re.findall(r"^\$ (.*)$", OPERATING.read_text(encoding="utf-8"), re.MULTILINE)


def promtool(pytestconfig: pytest.Config, *arguments: str) -> str:
    program = Path(str(pytestconfig.getoption("prometheus"))).with_name("promtool")
    done = subprocess.run(
        [program, *arguments], cwd=SHIPPED, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_what_is_shipped(pytestconfig: pytest.Config) -> None:
    assert "SUCCESS" in promtool(pytestconfig, "check", "config", "prometheus.yml")


def test_the_rules_do_what_their_cases_say(pytestconfig: pytest.Config) -> None:
    (command,) = (line for line in commands() if line.startswith("promtool "))
    assert "SUCCESS" in promtool(pytestconfig, *command.split()[1:])


def test_what_the_page_names_exists(capsys: pytest.CaptureFixture[str]) -> None:
    text = OPERATING.read_text(encoding="utf-8")
    (command,) = (line for line in commands() if line.startswith("prometheus "))
    assert (SHIPPED / command.rpartition("=")[2]).is_file()
    verbs = {verb.removesuffix(" ALIAS") for verb in re.findall(r"`oneseek ([a-z ]+)`", text)}
    assert len(verbs) > 2
    for verb in verbs:
        assert main([*verb.split(), "--help"]) == 0
        assert f"Usage: oneseek {verb}" in capsys.readouterr().out
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (OPERATING.parent / link).exists(), link
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor in {name.lower() for name in ALERTS}, anchor


def test_each_alert_fires_in_some_case() -> None:
    document = yaml.safe_load((SHIPPED / "rules_test.yml").read_text(encoding="utf-8"))
    cases = [case for one in document["tests"] for case in one.get("alert_rule_test", [])]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == ALERTS.keys()


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_is_explained(name: str) -> None:
    alert = ALERTS[name]
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert (page, anchor) == ("docs/operating.md", name.lower())
    assert f"### {name}\n" in OPERATING.read_text(encoding="utf-8")
    assert alert["labels"]["severity"] in ("page", "ticket")


def test_every_metric_that_a_rule_names_exists() -> None:
    recorded = {rule["record"] for rule in rules("recording.yml")}
    known = {"up"} | recorded
    for name in documented():
        known |= {name, *(f"{name}_{part}" for part in ("bucket", "sum", "count"))}
    for rule in (*rules("recording.yml"), *ALERTS.values()):
        named = set(re.findall(r"\b(?:oneseek_|vllm:|job:|instance:)[\w:]+", rule["expr"]))
        assert named or rule["expr"].startswith("up{"), rule
        assert named <= known, named - known


def test_intervals_are_shortened_and_names_are_not() -> None:
    text = "rate(x[5m]) > job:y:ratio5m and z offset 10m\nfor: 1m\nw[6h]"
    assert quick(text) == "rate(x[5s]) > job:y:ratio5m and z offset 10s\nfor: 3s\nw[90s]"
