"""Write the generated sections of BENCHMARKS.md from the reports in the folder bench/reports.

    python -m bench.report.benchmarks --write BENCHMARKS.md

Reports are put into that folder by hand: `oneseek bench compare … --out bench/reports/DATE-NAME.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import digits

from bench.report.details import details
from bench.report.headlines import ROWS, HeadlineRow, KeptReport

REPORTS = Path(__file__).parents[1] / "reports"
PLACE = "bench/reports"
BY_HAND = f"{PLACE}/measurements.md"
"""Page that describes the measurements whose ratios were entered by hand into a report."""
HEAD = ("what", "ratio", "goal", "date", "machine", "command")
PARTS = ("headlines", "details")


def kept(folder: Path = REPORTS) -> Iterator[tuple[str, KeptReport]]:
    """Yield the name and the contents of every report in `folder`: first those whose name begins with a date,
    newest first, then the others.
    """
    for path in sorted(
        folder.glob("*.json"), key=lambda path: (path.stem[0] in digits, path.stem), reverse=True
    ):
        yield path.stem, json.loads(path.read_text(encoding="utf-8"))


def rows(folder: Path = REPORTS) -> list[HeadlineRow]:
    """Return the headline ratios of every report. Reports without ratios are skipped."""
    found: list[HeadlineRow] = []
    for name, report in kept(folder):
        kind = report.get("schema", report.get("bench", ""))
        if kind in ROWS:
            found += ROWS[kind](report, BY_HAND if kind.startswith("oneseek-bench-recorded") else f"#{name}")
    return found


def headlines(found: Sequence[HeadlineRow]) -> str:
    """Return the table of headline ratios as Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for row in found:
        cells = (f"[{row.says}]({row.link})", row.ratio, row.goal, row.date, row.machine, row.command)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sections(folder: Path = REPORTS) -> str:
    """Return the details of every report (machine, command, figures) as Markdown."""
    parts = [line for name, report in kept(folder) for line in details(name, report, f"{PLACE}/{name}.json")]
    return "\n".join(parts).rstrip()


def written(document: str, folder: Path = REPORTS) -> str:
    """Return BENCHMARKS.md with its two generated sections replaced. Raises `ValueError` if a marker comment
    is missing.
    """
    for part, made in zip(PARTS, (headlines(rows(folder)), sections(folder)), strict=True):
        begin, end = marks(part)
        before, found, rest = document.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(
                f"the document lacks the marker comments of the section {part}; add {begin} and {end} to it"
            )
        document = f"{before}{begin}\n{made}\n{end}{after}"
    return document


def marks(part: str) -> tuple[str, str]:
    """Return the two comments that mark the beginning and the end of a generated section."""
    return f"<!-- {part}: made by python -m bench.report.benchmarks -->", f"<!-- end of {part} -->"


def main(given: Sequence[str] | None = None) -> None:
    """Print the table of headline ratios. With --write, write the two generated sections into a document
    instead.
    """
    parser = argparse.ArgumentParser(
        description="Print the generated parts of BENCHMARKS.md, or write them into it."
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the parts into this document, between its marks"
    )
    path: Path | None = parser.parse_args(given).write
    if path is None:
        print(headlines(rows()))
    else:
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
