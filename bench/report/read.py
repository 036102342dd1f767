"""Read a report.json that `oneseek bench run` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.report.document import SCHEMA


def read_report(path: Path) -> dict[str, Any]:
    """Return the report at `path`. Raises `OSError` if the file cannot be read, and `ValueError` if it is not
    a report of this version's schema.
    """
    try:
        report: Any = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("the file is nested too deeply to be a report") from None
    schema: Any = report.get("schema") if isinstance(report, dict) else None
    if schema != SCHEMA:
        raise ValueError(
            f"the report has the schema {schema!r}, but this version of OneSeek reads only {SCHEMA!r}; "
            "measure it again with oneseek bench run"
        )
    runs: Any = report.get("scenarios")
    if not isinstance(runs, list) or not all(_is_run(run) for run in runs):
        raise ValueError("the file has no runs of scenarios; give the report.json of oneseek bench run")
    return report


def _is_run(run: Any) -> bool:
    try:
        return (
            isinstance(run["name"], str)
            and "failed" in run
            and run["load"]["label"]
            and run["figures"]["total"]
        )
    except (KeyError, TypeError):
        return False
