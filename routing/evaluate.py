"""Judge the router on labelled text: `python -m routing.evaluate FOLDER [--half 0|1|all]`.

FOLDER holds files `SOURCE.tsv` of lines `LABEL<TAB>TEXT` with \\n, \\t and \\\\ escaped. Each text is routed
alone, under the default settings with an English and a Swedish adapter. The halves are by the last bit of
the first byte of the text's sha256: weights were fitted on half 0, half 1 is for judging.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from routing.detect import ProfileDetector
from routing.route import RouteQuery, Router
from routing.settings import LanguageRow, RoutingSettings, detection_code

_TRIALS = 3
"""The fastest counts: the others tell of the machine's other work."""
FIGURES = ("swedish_found", "english_kept_out", "nordic_kept_out", "other_kept_out", "english_found")


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One text with the language that it is known to be in."""

    source: str
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class RoutedText:
    """One text with where it went."""

    labelled: LabelledText
    adapter: str | None
    """`sv`, `en`, or None for the base."""
    sure: bool
    right: bool
    """Whether the likeliest language is the labelled one, as far as adapters tell languages apart."""
    seconds: float


class _BothAdapters:
    def is_adapter(self, name: str) -> bool:
        return name in ("sv", "en")

    def is_base(self, name: str) -> bool:
        return False


def read(folder: Path, half: int | None = 1) -> Iterator[LabelledText]:
    """The texts of one half (0 or 1), or all."""
    for path in sorted(folder.glob("*.tsv")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            language, tab, escaped = line.partition("\t")
            if tab:
                text = _unescape(escaped)
                if half is None or hashlib.sha256(text.encode()).digest()[0] & 1 == half:
                    yield LabelledText(path.stem, language, text)


def route_texts(texts: Sequence[LabelledText]) -> list[RoutedText]:
    """Route each text alone."""
    settings = RoutingSettings(languages=(LanguageRow("en", "en"), LanguageRow("sv", "sv")))
    router, catalogue = Router(settings, ProfileDetector(settings)), _BothAdapters()
    found: list[RoutedText] = []
    for labelled in texts:
        question = RouteQuery(turns=(labelled.text,))
        route, seconds = router.decide(question, catalogue), float("inf")
        for _ in range(_TRIALS):
            started = time.perf_counter()
            route = router.decide(question, catalogue)
            seconds = min(seconds, time.perf_counter() - started)
        adapter = route.target[0][0] if route.target else None
        expected = labelled.language if labelled.language in ("sv", "en") else None
        found.append(RoutedText(labelled, adapter, route.language is not None, adapter == expected, seconds))
    return found


def percentages(judged: Sequence[RoutedText]) -> dict[str, float | int | None]:
    """Percentages of `FIGURES`, None where a source has no such text; and how many texts there were."""

    def percent(languages: set[str], adapter: str, *, sent: bool) -> float | None:
        of = [j.adapter == adapter for j in judged if detection_code(j.labelled.language) in languages]
        return round(100 * sum(hit is sent for hit in of) / len(of), 2) if of else None

    seen = {detection_code(j.labelled.language) for j in judged}
    return {
        "swedish_found": percent({"sv"}, "sv", sent=True),
        "english_kept_out": percent({"en"}, "sv", sent=False),
        "nordic_kept_out": percent({"da", "no"}, "sv", sent=False),
        "other_kept_out": percent(seen - {"sv", "en", "da", "no"}, "sv", sent=False),
        "english_found": percent({"en"}, "en", sent=True),
        "texts": len(judged),
    }


def _unescape(text: str) -> str:
    parts = text.split("\\\\")
    return "\\".join(part.replace("\\n", "\n").replace("\\t", "\t") for part in parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each source and one for all but single words, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m routing.evaluate", description="Judge the router.")
    parser.add_argument("folder", type=Path, help="folder of SOURCE.tsv files")
    parser.add_argument("--half", choices=("0", "1", "all"), default="1", help="which half (default 1)")
    options = parser.parse_args(arguments)
    judged = route_texts(list(read(options.folder, None if options.half == "all" else int(options.half))))
    if not judged:
        parser.error(f"{options.folder} holds no labelled text")
    rows = {source: [j for j in judged if j.labelled.source == source] for source in _sources(judged)}
    rows["two words or more"] = [j for j in judged if len(j.labelled.text.split()) > 1]
    report = {source: percentages(found) for source, found in rows.items()}
    print(f"{'source':24}{'texts':>7}" + "".join(f"{name.replace('_', ' '):>18}" for name in FIGURES))
    for source, row in report.items():
        cells = "".join(f"{row[name]:>18}" if row[name] is not None else f"{'-':>18}" for name in FIGURES)
        print(f"{source:24}{row['texts']:>7}{cells}")
    milliseconds = np.array([j.seconds for j in judged]) * 1000
    sure = [j.right for j in judged if j.sure]
    total = {
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 4),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 4),
        "sure_share": round(100 * len(sure) / len(judged), 2),
        "sure_right": round(100 * sum(sure) / max(len(sure), 1), 2),
    }
    print(
        f"p50 {total['p50_ms']} ms, p99 {total['p99_ms']} ms; "
        f"sure of {total['sure_share']}%, right there {total['sure_right']}%"
    )
    print(json.dumps({"sources": report, **total}))


def _sources(judged: Sequence[RoutedText]) -> list[str]:
    return list(dict.fromkeys(j.labelled.source for j in judged))


if __name__ == "__main__":
    main()
