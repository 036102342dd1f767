"""What a report says first, and a page that needs no network."""

from __future__ import annotations

import hashlib
import html.parser
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bench.report
from bench.cli.output import finish
from bench.figures.level import ServiceLevel
from bench.figures.summary import summarize
from bench.load.records import ClientUse, LoadProgress, LoadRun
from bench.report.document import SCHEMA, report
from bench.report.page import page
from bench.report.progress import ProgressLine
from bench.report.table import lines
from bench.scenarios.catalogue import find_scenario
from bench.suite.measure import LoadShape, ScenarioResult
from bench.suite.ramp import RampResult
from bench.target.changes import AdapterChange
from bench.target.reconcile import reconcile
from bench.target.sampler import BatchSample
from tests.bench.figures.records import record

ABOUT: dict[str, Any] = {
    "date": "2026-11-28T12:00:00+00:00",
    "command": "oneseek bench run",
    "host": {},
    "servers": [],
    "skipped": {},
}
VENDOR = Path(bench.report.__file__).parent / "vendor"


def result(**fields: Any) -> ScenarioResult:
    records = (record(1), record(2, answered_by="en@v1", language="en", expects="en"))
    plain = ScenarioResult(
        find_scenario("mixed"),
        LoadShape(users=2),
        summarize(records, 1.0, ServiceLevel()),
        reconcile(records, None, None),
        LoadRun(records, (ClientUse(0.1, 1.0, 0.0),), 1.0, 0.0),
        (BatchSample(0.0, 1, 0), BatchSample(0.5, 2, 1)),
    )
    return replace(plain, **fields)


def failing() -> ScenarioResult:
    records = (
        record(1),
        record(2, outcome="failed", status=500, fault="status 500: </script><b>", arrivals=()),
    )
    run = LoadRun(records, (ClientUse(0.1, 1.0, 0.0),), 1.0, 0.0)
    return result(figures=summarize(records, 1.0, ServiceLevel()), run=run)


def test_a_run_with_a_failed_request_says_so_first_and_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finish(report(ABOUT, [result(), failing()], [], None), tmp_path) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("FAILED: mixed: 1 of 2")
    assert json.loads(out[-1])["failed"] == ["mixed"]
    assert finish(report(ABOUT, [result()], [], None), tmp_path) == 0
    assert not capsys.readouterr().out.startswith("FAILED")


def test_a_change_that_the_server_refuses_is_a_failure() -> None:
    refused = AdapterChange("load", "bench-changed", 0.5, 0.1, 409, "no")
    assert result(changes=(refused,)).failed
    assert not result(changes=(replace(refused, status=200),)).failed


def test_the_report_is_json_with_every_request(tmp_path: Path) -> None:
    found = report(ABOUT, [result()], [RampResult((result(),), 2.0, True)], limit=80.0)
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["schema"] == SCHEMA
    (scenario,) = again["scenarios"]
    assert [row["ttft_ms"] for row in scenario["requests"]] == [100.0, 100.0]
    assert scenario["figures"]["routing"]["accuracy"] == 1.0
    assert scenario["share_of_limit"] == pytest.approx(8 / 80)
    (own,) = report(ABOUT, [result()], [], None, lambda _: 40.0)["scenarios"]
    assert (own["limit_tokens_per_second"], own["share_of_limit"]) == (40.0, pytest.approx(8 / 40))
    (queued,) = report(ABOUT, [result(queue_mean=0.25)], [], None)["scenarios"]
    assert queued["queue_mean_ms"] == 250
    (unknown,) = report(ABOUT, [result()], [], None)["scenarios"]
    assert unknown["share_of_limit"] is None
    assert again["ramps"][0]["holds"] == 2
    assert any("of the limit" in line for line in lines(found))


class Addresses(html.parser.HTMLParser):
    """Everything that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]


def test_the_page_loads_nothing_and_no_text_ends_its_data() -> None:
    text = page(report(ABOUT, [failing()], [], None))
    seen = Addresses()
    seen.feed(text)
    assert (seen.found, seen.scripts) == ([], 3)
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    data = re.search(r'id="report">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["scenarios"][0]["name"] == "mixed"
    assert "</script><b>" not in text


def test_the_vendored_plots_are_those_of_their_release() -> None:
    about = json.loads((VENDOR / "uplot.json").read_text())
    files = {path.name for path in VENDOR.iterdir()} - {"uplot.json"}
    assert files == set(about["sha256"])
    for name, digest in about["sha256"].items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest
    assert f"v{about['version']})" in (VENDOR / "uPlot.iife.min.js").read_text()[:60]


def test_progress_is_a_line_now_and_then_if_nobody_watches() -> None:
    out = io.StringIO()
    line = ProgressLine("mixed, 2 users", 10, out)
    line.show(LoadProgress(completed=1, failed=1, tokens=50, running=2))
    line.show(LoadProgress(completed=2))
    line.end()
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().startswith("mixed, 2 users: 2/10, 2 running, 1 FAILED")
