"""Format a report as lines of text for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

HEAD = (
    "scenario", "load", "requests", "tokens/s", "words/s", "TTFT p50/p95/p99 ms", "ITL p50/p95/p99 ms",
    "e2e p50/p99 ms", "goodput/s", "fair", "routed", "server",
)  # fmt: skip

Row = Mapping[str, Any]


def lines(report: Mapping[str, Any]) -> list[str]:
    """Return the lines of a report: failures, a table with a row for each scenario and rows for its adapters,
    the largest loads that the ramps found, and notes.
    """
    rows: list[tuple[str, ...]] = [HEAD]
    for found in report["scenarios"]:
        rows.append(_row(found))
        parts: Mapping[str, Row] = found["figures"]["by_adapter"]
        rows += [_part(name, part) for name, part in list(parts.items())[:8] if len(parts) > 1]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return [*_failures(report), *table, *_ramps(report), *_notes(report)]


def _failures(report: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"SKIPPED: {name}: {why}" for name, why in report["skipped"].items())
    for found in report["scenarios"]:
        if not found["failed"]:
            continue
        total = found["figures"]["total"]
        yield f"FAILED: {found['name']}: {total['failed']} of {total['requests']} requests failed"
        yield from (f"  {fault}" for fault in found["figures"]["faults"][:5])
        yield from (
            f"  {change['action']} {change['name']}: status {change['status']}: {change['error']}"
            for change in found["changes"]
            if change["status"] != 200
        )
        if found["reconciliation"]["verdict"] == "mismatch":
            yield f"  counters: {found['reconciliation']['says']}"


def _row(found: Row) -> tuple[str, ...]:
    figures = found["figures"]
    routing = figures["routing"]
    routed = "-" if routing["accuracy"] is None else f"{routing['accuracy']:.1%}"
    fair = "-" if figures["fairness"] is None else f"{figures['fairness']:.3f}"
    cells = _cells(found["name"], found["load"]["label"], figures["total"])
    return (*cells, fair, routed, found["reconciliation"]["verdict"])


def _part(name: str, part: Row) -> tuple[str, ...]:
    return (*_cells(f"  {name}", "", part), "", "", "")


def _cells(name: str, load: str, part: Row) -> tuple[str, ...]:
    ended = f"{part['completed']}" + (f" +{part['cancelled']} cancelled" if part["cancelled"] else "")
    return (
        name,
        load,
        ended + (f" +{part['failed']} FAILED" if part["failed"] else ""),
        f"{part['output_tokens_per_second']:.1f}",
        f"{part['words_per_second']:.1f}",
        _times(part["ttft_ms"], "p50", "p95", "p99"),
        _times(part["itl_ms"], "p50", "p95", "p99"),
        _times(part["e2e_ms"], "p50", "p99"),
        f"{part['goodput_per_second']:.2f}",
    )


def _times(spread: Row | None, *names: str) -> str:
    return "/".join(f"{spread[name]:.4g}" for name in names) if spread else "-"


def _ramps(report: Mapping[str, Any]) -> Iterator[str]:
    for found in report["ramps"]:
        level = report["scenarios"][0]["figures"]["level"]
        limits = f"TTFT ≤ {level['ttft_ms']:g} ms and ITL ≤ {level['itl_ms']:g} ms at p95"
        more = "" if found["bounded"] else " or more"
        yield ""
        yield f"{found['scenario']}: {limits} up to {found['holds']:g}{more} {found['unit']}"


def _notes(report: Mapping[str, Any]) -> Iterator[str]:
    for found in report["scenarios"]:
        said = [*found["warnings"], *found["notes"]]
        if found["reconciliation"]["verdict"] in ("other traffic", "no metrics"):
            said.append(found["reconciliation"]["says"])
        if found["share_of_limit"] is not None:
            limit = f"{found['limit_tokens_per_second']:,.0f} tokens/s"
            said.append(f"{found['share_of_limit']:.1%} of the limit, which is {limit}")
        busiest = max(use["share_of_core"] for use in found["client"])
        several = "process" if len(found["client"]) == 1 else "processes"
        said.append(f"{len(found['client'])} client {several}, the busiest at {busiest:.0%} of a core")
        for note in dict.fromkeys(said):
            yield f"{found['name']} ({found['load']['label']}): {note}"
