"""Builds the Grafana dashboard from its variables and rows."""

from __future__ import annotations

import json

from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    Dashboard as DashboardModel,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from deploy.grafana.engine_rows import canary, engine, residency
from deploy.grafana.panels import SOURCE
from deploy.grafana.rows import adapter, overview, routing, versions

UID = "oneseek"
_ALL = VariableOption(text="All", value="$__all", selected=True)


def build() -> DashboardModel:
    """Return the whole Grafana dashboard as an object of Grafana's dashboard model."""
    board = (
        Dashboard("OneSeek")
        .uid(UID)
        .description("A OneSeek server and its LoRA adapters. docs/operating.md explains the dashboard.")
        .tags(["oneseek", "llm", "lora"])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_variable("job", "oneseek_build_info", many=False))
        .with_variable(_variable("instance", 'oneseek_build_info{job="$job"}', many=True))
        .with_variable(
            _variable("adapter", 'oneseek_adapter_resident{job="$job",instance=~"$instance"}', many=True)
        )
    )
    for row in (overview(), versions(), routing(), residency(), canary(), engine(), adapter()):
        head = Row(row.title).collapsed(row.collapsed)
        board = board.with_row(head.repeat(row.repeat) if row.repeat is not None else head)
        for panel in row.panels:
            board = board.with_panel(panel)
    return board.build()


def _variable(name: str, series: str, *, many: bool) -> QueryVariable:
    """Return a dashboard variable whose choices are the values of the label `name` of the metric `series`. If
    `many` is true, several can be selected.
    """
    made = (
        QueryVariable(name)
        .datasource(SOURCE)
        .query({"query": f"label_values({series}, {name})", "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    return made.multi(True).include_all(True).current(_ALL) if many else made


def board_json() -> str:
    """Return the dashboard as JSON that Grafana imports."""
    return json.dumps(build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"
