"""Write a report as a table on the terminal, as files in a folder, and as a last line of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.report.page import page
from bench.report.table import lines


@contextmanager
def place(out: Path | None) -> Generator[None]:
    """Make the folder `out` before a measurement, whose report would be lost if it could not be made. Remove
    it again if the measurement ends without a result.
    """
    made = out is not None and not out.exists()
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if made and out is not None:
            with suppress(OSError):
                out.rmdir()
        raise


def finish(report: Mapping[str, Any], out: Path) -> int:
    """Write report.json and report.html to the folder `out`, and print the table and the JSON line. Return
    the exit code: 1 if the report says that a request failed, else 0.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = out / "report.json"
    written.write_text(json.dumps(report, ensure_ascii=False) + "\n", encoding="utf-8")
    shown = out / "report.html"
    shown.write_text(page(report), encoding="utf-8")
    print("\n".join(lines(report)))
    print(f"report: {written}, {shown}")
    print(json.dumps(summary(report, written), ensure_ascii=False))
    sys.stdout.flush()
    return 1 if report["failed"] else 0


def summary(report: Mapping[str, Any], written: Path) -> dict[str, Any]:
    """Return the JSON object that a run prints as its last line: the main figures of each scenario."""
    return {
        "bench": "run",
        "schema": report["schema"],
        "failed": report["failed"],
        "skipped": list(report["skipped"]),
        "report": str(written),
        "scenarios": [
            {
                "name": found["name"],
                "load": found["load"]["label"],
                **{
                    name: found["figures"]["total"][name]
                    for name in (
                        "completed",
                        "cancelled",
                        "failed",
                        "output_tokens_per_second",
                        "goodput_per_second",
                    )
                },
                "ttft_p50_ms": _at(found, "ttft_ms"),
                "itl_p50_ms": _at(found, "itl_ms"),
                "reconciliation": found["reconciliation"]["verdict"],
            }
            for found in report["scenarios"]
        ],
        "ramps": [{name: found[name] for name in ("scenario", "holds", "unit")} for found in report["ramps"]],
    }


def _at(found: Mapping[str, Any], name: str) -> float | None:
    spread = found["figures"]["total"][name]
    return spread["p50"] if spread else None
