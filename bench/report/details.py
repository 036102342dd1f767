"""Write the details of a report for BENCHMARKS.md: the machine, the command and every figure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench.figures.compared import COMPARED
from bench.report.headlines import KeptReport, compared_points, interval, machine, point_name, short
from bench.suite.rounds import SHARE


def details(name: str, report: KeptReport, path: str) -> list[str]:
    """Return the details of a report as lines of Markdown: a heading, the machine, the command, and tables of
    figures. Empty for a kind of report that has no tables.
    """
    kind = report.get("schema", report.get("bench", ""))
    if kind not in TABLES:
        return []
    return [f"### {name}", "", *_about(report, path), "", *TABLES[kind](report), ""]


def _about(report: KeptReport, path: str) -> Iterator[str]:
    host = report["host"]
    commands = report.get("commands") or [{"command": report["command"], "date": report["date"]}]
    yield "\n".join(f"    {short(entry['command'])}" for entry in commands)
    yield ""
    versions = ", ".join(f"{package} {version}" for package, version in host["versions"].items() if version)
    gpu = host["gpu"]
    place = (
        f"{gpu['name']} (driver {gpu['driver']}), {host['cores']} cores of {host['cpu']}"
        if gpu
        else machine(report)
    )
    yield (
        f"{commands[0]['date'][:10]}, commit {host['oneseek']}. {place}, {host['memory_gib']} GiB, "
        f"Linux {host['kernel']}, Python {host['python']}; {versions}. Everything: [{path}]({path})."
    )


def _compare(report: KeptReport) -> Iterator[str]:
    points = compared_points(report)
    rounds = len(points[0]["rounds"]["a"])
    yield f"A is `{report['a']}`, B is `{report['b']}`; scenario `{report['scenario']}`, {rounds} rounds."
    for point in points:
        if len(points) > 1:
            yield from ("", f"{point_name(point).capitalize()}:")
        yield from _limits({"A": point.get(SHARE, {}).get("a"), "B": point.get(SHARE, {}).get("b")})
        yield ""
        yield from _table(
            ("figure", "A, median", "B, median", "B / A (95% interval)", "better"),
            [
                (
                    name,
                    _median(point, "a", name),
                    _median(point, "b", name),
                    interval(ratio),
                    COMPARED[name][1],
                )
                for name, ratio in point["ratios"].items()
            ],
        )


def _tax(report: KeptReport) -> Iterator[str]:
    yield from _limits(report.get(SHARE, {}))
    yield ""
    names = ("tokens_per_second", "ttft_p50_ms", "itl_p50_ms")
    yield from _table(
        ("state", "tokens/s, median", *(f"{name} / off" for name in names)),
        [
            (
                state,
                _median(report, state, "tokens_per_second"),
                *(_ratio(report, state, name) for name in names),
            )
            for state in report["rounds"]
        ],
    )  # fmt: skip


def _ratio(report: KeptReport, state: str, name: str) -> str:
    found = report["ratios"].get(state, {}).get(name)
    return interval(found) if found else ""


def _gpu(report: KeptReport) -> Iterator[str]:
    yield from _table(
        (
            "server",
            "scenario",
            "streams",
            "tokens/s",
            "TTFT p50 ms",
            "ITL p50 ms",
            "decode step ms",
            "failed",
        ),
        [
            (
                point["server"],
                point["scenario"],
                str(point["streams"]),
                _number(point["tokens_per_second"]),
                _number((point.get("ttft_ms") or {}).get("p50")),
                _number((point.get("itl_ms") or {}).get("p50")),
                _number(point.get("decode_step_ms")),
                f"{point['failed']} of {point['requests']}",
            )
            for point in report["points"]
        ],
    )


TABLES: Mapping[str, Callable[[KeptReport], Iterator[str]]] = {
    "gpu": _gpu,
    "oneseek-bench-compare/1": _compare,
    "oneseek-bench-compare/2": _compare,
    "oneseek-bench-tax/1": _tax,
}
"""Maps each kind of report to the function that writes its tables."""


def _limits(shares: Mapping[str, float | None]) -> Iterator[str]:
    known = [f"{name} {share:.1%}" for name, share in shares.items() if share is not None]
    if known:
        yield f"Share of the limit of the device: {', '.join(known)}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _median(report: KeptReport, side: str, name: str) -> str:
    values = [figures[name] for figures in report["rounds"][side] if name in figures]
    return _number(statistics.median(values)) if values else ""


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
