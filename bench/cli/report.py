"""`oneseek bench report`: print the table of an existing report.json, and write its report.html again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.report.page import page
from bench.report.read import read_report
from bench.report.table import lines


def main(given: Sequence[str] | None = None) -> int:
    """Print the table of an existing report, and write its HTML page into the same folder. Return 2 if the
    file is not a report, else 0.
    """
    parser = argparse.ArgumentParser(description="Print a report's table again and write its report.html.")
    parser.add_argument("report", type=Path, help="Path of a report.json.")
    path: Path = parser.parse_args(given).report
    try:
        report = read_report(path)
        table, shown = lines(report), page(report)
        path.with_suffix(".html").write_text(shown, encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"oneseek bench report: {path}: {error}", file=sys.stderr)
        return 2
    except (KeyError, TypeError, AttributeError) as error:
        print(f"oneseek bench report: {path}: the report is damaged: {error!r}", file=sys.stderr)
        return 2
    print("\n".join(table))
    return 0
