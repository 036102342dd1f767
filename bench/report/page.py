"""Build report.html: the report with plots, in one file that can be opened offline.

The plots use uPlot (its version is in vendor/uplot.json). Scripts and styles are inside the file, so the page
loads nothing from the network.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.report.table import lines

HERE = Path(__file__).parent
KEPT = ("number", "answered_by", "asked", "outcome", "at_ms", "ttft_ms", "e2e_ms")
"""Fields of each request that the plots use."""


def page(report: Mapping[str, Any]) -> str:
    """Return a report as a whole HTML document."""
    parts = {
        "style": _read("vendor/uPlot.min.css") + _read("page.css"),
        "table": html.escape("\n".join(lines(report))),
        "title": html.escape(f"oneseek bench, {report['date']}"),
        "about": html.escape(json.dumps(_about(report), indent=2, ensure_ascii=False)),
        "data": _embedded(_plotted(report)),
        "uplot": _read("vendor/uPlot.iife.min.js"),
        "script": _read("page.js"),
    }
    # One pass over the template, so that nothing in a part is taken for a mark.
    pieces = _read("page.html").split("%%")
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _embedded(value: object) -> str:
    """Return a value as JSON for an HTML script element. `<` is escaped, so that no text can end the
    element.
    """
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def _about(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name not in ("scenarios", "ramps")}


def _plotted(report: Mapping[str, Any]) -> dict[str, Any]:
    scenarios = [
        {
            "name": found["name"],
            "load": found["load"]["label"],
            "share_of_limit": found["share_of_limit"],
            "batch": found["batch"],
            "adapters": {
                name: {
                    "tokens_per_second": part["output_tokens_per_second"],
                    "ttft_p50_ms": part["ttft_ms"] and part["ttft_ms"]["p50"],
                    "ttft_p95_ms": part["ttft_ms"] and part["ttft_ms"]["p95"],
                }
                for name, part in found["figures"]["by_adapter"].items()
            },
            "requests": [{name: request[name] for name in KEPT} for request in found["requests"]],
        }
        for found in report["scenarios"]
    ]
    return {"scenarios": scenarios, "ramps": report["ramps"], "loads": _loads(report)}


def _loads(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the points of the plots of latency by load, grouped by scenario: one point for each load at
    which a scenario was measured.
    """
    points: dict[str, list[dict[str, Any]]] = {}
    for found in report["scenarios"]:
        total, shape = found["figures"]["total"], found["load"]
        if not total["ttft_ms"]:
            continue
        unit = "users" if shape["users"] else "requests/s"
        points.setdefault(f"{found['name']} ({unit})", []).append(
            {
                "load": shape["users"] or shape["rate"],
                "ttft_p50_ms": total["ttft_ms"]["p50"],
                "ttft_p95_ms": total["ttft_ms"]["p95"],
                "itl_p95_ms": total["itl_ms"] and total["itl_ms"]["p95"],
                "tokens_per_second": total["output_tokens_per_second"],
            }
        )
    return [
        {"name": name, "points": sorted(found, key=lambda point: point["load"])}
        for name, found in points.items()
    ]
