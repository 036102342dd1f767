"""`oneseek bench report`: print the table of an existing report.json, and write its report.html again."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.report.document import SCHEMA
from bench.report.page import page
from bench.report.table import lines


def main(given: Sequence[str] | None = None) -> int:
    """Print the table of an existing report, and write its HTML page into the same folder. Return 2 if the
    file is not a report, else 0.
    """
    parser = argparse.ArgumentParser(description="Print a report's table again and write its report.html.")
    parser.add_argument("report", type=Path, help="Path of a report.json.")
    path: Path = parser.parse_args(given).report
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report.get("schema") != SCHEMA:
            raise ValueError(
                f"the report has the schema {report.get('schema')!r}, but this version of OneSeek reads only "
                f"{SCHEMA!r}; measure it again with oneseek bench run"
            )
    except (OSError, ValueError) as error:
        print(f"oneseek bench report: {path}: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines(report)))
    path.with_suffix(".html").write_text(page(report), encoding="utf-8")
    return 0
