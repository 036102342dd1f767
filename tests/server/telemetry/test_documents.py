"""What the pages on logs, traces and the doctor show is what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from server.config.settings import OPTIONS, resolve_settings
from server.doctor.examine import CHECKS
from server.telemetry.entry import RequestEntry, Work
from server.telemetry.otel import names

ROOT = Path(__file__).resolve().parents[3]
PAGES = {
    name: (ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("logs", "telemetry", "doctor")
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEMPLATE = ROOT / ".github/ISSUE_TEMPLATE/bug.yml"


def blocks(page: str, kind: str) -> list[str]:
    return [body for found, body in FENCE.findall(PAGES[page]) if found == kind]


def listed(page: str) -> set[str]:
    """What stands in backticks in the first column of a page's tables."""
    rows = [line for line in PAGES[page].splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])}


def test_every_field_of_a_line_is_in_its_table_and_in_its_example() -> None:
    fields = {"event", *RequestEntry.__struct_fields__, *Work.__struct_fields__}
    assert fields <= listed("logs")
    (example,) = blocks("logs", "json")
    assert set(json.loads(example)) <= fields
    assert "\n" not in example.strip()


def test_every_setting_on_logs_exists() -> None:
    options = {option.name: option for option in OPTIONS}
    for name in ("log_format", "log_requests", "log_content", "log_level"):
        assert name in listed("logs")
        assert name in options
    (sample,) = blocks("logs", "yaml")
    assert resolve_settings({name: str(value).lower() for name, value in yaml.safe_load(sample).items()})


def test_every_check_is_in_the_doctors_table() -> None:
    assert {name for name, _ in CHECKS} <= listed("doctor")


def test_the_names_of_spans_and_metrics_are_documented() -> None:
    text = PAGES["telemetry"]
    for name in (names.HTTP_DURATION, names.REQUEST_DURATION, names.FIRST_TOKEN, names.PER_TOKEN):
        assert f"`{name}`" in text
    for name in (
        names.OPERATION,
        names.INPUT_TOKENS,
        names.CACHED_TOKENS,
        names.FINISH_REASONS,
        names.OPT_IN,
    ):
        assert name in text
    for phase in ("parse", "route", "queue", "prefill", "decode"):
        assert f"`oneseek.{phase}`" in text


def test_the_issue_template_asks_for_the_doctor() -> None:
    form = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    fields = [item for item in form["body"] if item["type"] != "markdown"]
    assert len({item["id"] for item in fields}) == len(fields)
    assert {item["type"] for item in form["body"]} <= {
        "markdown",
        "textarea",
        "input",
        "dropdown",
        "checkboxes",
    }
    doctor = next(item for item in fields if item["id"] == "doctor")
    assert "oneseek doctor --json" in doctor["attributes"]["label"]
    assert doctor["validations"]["required"] is True
