"""The queries of the shipped board, as Grafana would send them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOARD = Path(__file__).resolve().parents[3] / "deploy" / "grafana" / "oneseek.json"
VARIABLES = {"$__rate_interval": "8s", "$job": "oneseek", "$instance": ".*", "$adapter": ".*"}
"""Each variable and what the test puts in its place."""


@dataclass(frozen=True, slots=True)
class BoardPanel:
    """One panel and the row that it is in."""

    row: str
    title: str
    kind: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    """Expression and legend."""


def panels(adapter: str = ".*") -> list[BoardPanel]:
    """Every panel of the board with its variables filled in."""
    board = json.loads(BOARD.read_text(encoding="utf-8"))
    found: list[BoardPanel] = []
    row = ""
    for panel in board["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "short")
        targets: list[dict[str, Any]] = panel["targets"]
        queries = tuple((_filled(one["expr"], adapter), one.get("legendFormat", "")) for one in targets)
        found.append(BoardPanel(row, panel["title"], panel["type"], unit, queries))
    return found


def _filled(expression: str, adapter: str) -> str:
    for name, text in (VARIABLES | {"$adapter": adapter}).items():
        expression = expression.replace(name, text)
    return expression
