"""The committed board is what its builder makes, and every panel of it says what it shows."""

from __future__ import annotations

import json
import re

from deploy.grafana.board import board_json
from tests.deploy.watching.board_queries import BOARD, panels
from tests.server.metrics.test_metrics import documented


def test_the_committed_board_is_what_the_builder_makes() -> None:
    assert BOARD.read_text(encoding="utf-8") == board_json(), "run: python -m deploy.grafana"


def test_every_panel_is_described() -> None:
    board = json.loads(board_json())
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"


def test_every_metric_on_it_is_documented() -> None:
    known = {"ALERTS"}
    for name in documented():
        known |= {name, *(f"{name}_{part}" for part in ("bucket", "sum", "count"))}
    for panel in panels():
        for query, _ in panel.queries:
            named = set(re.findall(r"\b(?:oneseek_|vllm:|process_)[\w:]+", query))
            assert named <= known, (panel.title, named - known)


def test_no_variable_is_left() -> None:
    for panel in panels():
        assert "$" not in "".join(query for query, _ in panel.queries), panel.title
