"""Build the table of headline ratios for BENCHMARKS.md, from the reports in bench/reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KeptReport = Mapping[str, Any]
GPU_STATES = {"idle": "no adapter asked for", "two": "two adapters mixed", "eight": "eight adapters mixed"}
GPU_GOALS = {
    "idle": "1.0; 1.15 at 256 streams",
    "two": "1.0; 1.15 at 256 streams",
    "eight": "1.0; 1.15 at 256 streams",
}
MIXED_GOAL = "0.92"
COMPARED_FIGURES = {"tokens_per_second": "tokens/s", "ttft_p50_ms": "TTFT p50"}
DROPPED = frozenset({"--out", "--work", "--commit", "--resume"})
"""Flags that are left out of a quoted command, because their values apply to one machine only."""


@dataclass(frozen=True, slots=True)
class HeadlineRow:
    """A row of the table of headline ratios: a ratio, or the same ratio at several loads."""

    says: str
    ratio: str
    goal: str
    """The lowest acceptable ratio, or for a time the highest. Empty if there was no goal."""
    date: str
    machine: str
    command: str
    link: str
    """Link to the details of the measurement."""


def gpu_rows(report: KeptReport, link: str) -> list[HeadlineRow]:
    """Return the rows of a GPU report: OneSeek's token rate divided by that of `vllm serve`, and OneSeek's
    rate with adapters divided by its own without.
    """
    rates = {(p["server"], p["scenario"], p["streams"]): p["tokens_per_second"] for p in report["points"]}
    command = report["commands"][0]
    about = (command["date"][:10], report["host"]["gpu"]["name"], f"`{short(command['command'])}`", link)
    rows: list[HeadlineRow] = []
    for scenario, says in GPU_STATES.items():
        ratio = _over(rates, ("oneseek", scenario), ("vllm", scenario))
        if ratio:
            name = f"OneSeek / `vllm serve`, tokens/s, {says}"
            rows.append(HeadlineRow(name, ratio, GPU_GOALS[scenario], *about))
    for scenario in ("two", "eight"):
        ratio = _over(rates, ("oneseek", scenario), ("oneseek", "idle"))
        if ratio:
            name = f"OneSeek with {GPU_STATES[scenario]} / {GPU_STATES['idle']}, tokens/s"
            rows.append(HeadlineRow(name, ratio, MIXED_GOAL, *about))
    return rows


def _over(
    rates: Mapping[tuple[str, str, int], float | None], one: tuple[str, str], other: tuple[str, str]
) -> str:
    """Return the ratios of the rate of `one` to that of `other`, at every number of streams that both were
    measured with.
    """
    found = [
        f"{rate / under:.2f} at {streams} streams"
        for (server, scenario, streams), rate in rates.items()
        if (server, scenario) == one and rate and (under := rates.get((*other, streams)))
    ]
    return ", ".join(found)


def compare_rows(report: KeptReport, link: str) -> list[HeadlineRow]:
    """Return the rows of a report that compares two servers A and B. Each row has the ratio B / A of one
    headline figure at one load.
    """
    about = (report["date"][:10], machine(report), f"`{short(report['command'])}`", link)
    sides = f"`{report['b']}` / `{report['a']}`"
    return [
        HeadlineRow(
            f"{sides}, {says}, {report['scenario']}, {point_name(point)}",
            interval(point["ratios"][figure]),
            f"{report['threshold']:g}" if figure in point["judged"] else "",
            *about,
        )
        for point in compared_points(report)
        for figure, says in COMPARED_FIGURES.items()
        if figure in point["ratios"]
    ]


def compared_points(report: KeptReport) -> Sequence[KeptReport]:
    """Return the loads in a report of `oneseek bench compare` at which both servers were measured, each with
    its ratios. An old report (schema 1) has the only load and its ratios at its top level; the result is
    then a list with only the report.
    """
    return report.get("points", [report])


def point_name(point: KeptReport) -> str:
    """Return the load of a measurement as text, such as `16 users` or `4/s`. The endpoint precedes it, unless
    it is chat.
    """
    load = point["load"]
    name = f"{load['users']} user{'s' if load['users'] > 1 else ''}" if load["users"] else f"{load['rate']}/s"
    endpoint = point.get("endpoint", "chat")
    return name if endpoint == "chat" else f"{endpoint}, {name}"


def tax_rows(report: KeptReport, link: str) -> list[HeadlineRow]:
    """Return the rows of a report of `oneseek bench tax`. Each has the token rate of one way to serve (such
    as with merged weights or with two adapters), divided by the token rate without adapters.
    """
    about = (report["date"][:10], machine(report), f"`{short(report['command'])}`", link)
    return [
        HeadlineRow(f"adapters: {state} / off, tokens/s", interval(found["tokens_per_second"]), "", *about)
        for state, found in report["ratios"].items()
    ]


def recorded_rows(report: KeptReport, link: str) -> list[HeadlineRow]:
    """Return the rows of a report that was entered by hand. Each links to its section in
    bench/reports/measurements.md.
    """
    return [
        HeadlineRow(
            row["says"], row["ratio"], row["goal"], row["date"], row["machine"], f"`{row['command']}`",
            f"{link}#{row['section']}",
        )
        for row in report["rows"]
    ]  # fmt: skip


ROWS: Mapping[str, Callable[[KeptReport, str], list[HeadlineRow]]] = {
    "gpu": gpu_rows,
    "oneseek-bench-compare/1": compare_rows,
    "oneseek-bench-compare/2": compare_rows,
    "oneseek-bench-tax/1": tax_rows,
    "oneseek-bench-recorded/1": recorded_rows,
}
"""Maps each kind of report to the function that makes its rows for the table of headline ratios."""


def machine(report: KeptReport) -> str:
    """Return the machine of a report as text: its cores, its GPU or else its CPU, and the load average."""
    host, load = report["host"], report["load_average"]
    busy = f", load {load[0]:g}" if load else ""
    return f"{host['cores']} cores of {host['gpu']['name'] if host['gpu'] else host['cpu']}{busy}"


def interval(ratio: Mapping[str, float]) -> str:
    """Format a ratio with the bounds of its interval."""
    return f"{_digits(ratio['ratio'])} ({_digits(ratio['low'])} to {_digits(ratio['high'])})"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def short(command: str) -> str:
    """Return a command without flags whose values apply to one machine only, such as paths."""
    words = command.split(" ")
    kept = [
        word
        for number, word in enumerate(words)
        if word not in DROPPED and (number == 0 or words[number - 1] not in DROPPED)
    ]
    return " ".join(kept)
