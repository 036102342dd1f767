"""Build the panels of the Grafana dashboard, with a function for each kind of panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, dashboard, heatmap, stat, table, timeseries
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardFieldConfigSourceOverrides,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    MatcherConfig,
    Panel,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
COLUMNS = 24
"""Width of a Grafana dashboard, in its grid units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A Prometheus query of a panel in the Grafana dashboard."""

    expr: str
    legend: str = ""
    """Label of the query's lines in a graph, such as `{{adapter}}`. In a table, the name of the column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The contents of a panel: its title, description and queries, with its unit and size."""

    title: str
    text: str
    """The panel's description: what it shows, and what to do if it looks wrong."""
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = 8
    height: int = 7


@dataclass(frozen=True, slots=True)
class BoardRow:
    """A row of panels in the dashboard. If `repeat` names a dashboard variable, Grafana shows the row once
    for each value of it.
    """

    title: str
    panels: Sequence[Builder[Panel]]
    repeat: str | None = None
    collapsed: bool = False


def shown(
    title: str,
    text: str,
    *queries: tuple[str, str] | str,
    unit: str = "short",
    width: int = 8,
    height: int = 7,
) -> Shown:
    """Return the contents of a panel. Each of `queries` is a PromQL expression, or a pair of an expression
    and its legend.
    """
    made = [Query(expr=one) if isinstance(one, str) else Query(expr=one[0], legend=one[1]) for one in queries]
    return Shown(title=title, text=text, queries=tuple(made), unit=unit, width=width, height=height)


def lines(what: Shown, *, stacked: bool = False, least: float | None = 0) -> Builder[Panel]:
    """Return a graph panel, which shows lines over time. `least` is the lowest value of the axis."""
    panel = (
        timeseries.Panel()
        .title(what.title)
        .description(what.text)
        .datasource(SOURCE)
        .unit(what.unit)
        .span(what.width)
        .height(what.height)
        .fill_opacity(40 if stacked else 8)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if least is not None:
        panel = panel.min(least)
    for target in _targets(what.queries):
        panel = panel.with_target(target)
    return panel


def number(what: Shown, *limits: tuple[float, str]) -> Builder[Panel]:
    """Return a panel with one number and a small graph. `limits` has pairs of a value and the colour of the
    number from that value on.
    """
    steps = [Threshold(value=None, color="green")]
    steps += [Threshold(value=value, color=color) for value, color in limits]
    panel = (
        stat.Panel()
        .title(what.title)
        .description(what.text)
        .datasource(SOURCE)
        .unit(what.unit)
        .span(what.width)
        .height(what.height)
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.AREA)
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    )
    for target in _targets(what.queries):
        panel = panel.with_target(target)
    return panel


def quarter(
    title: str, text: str, *queries: tuple[str, str] | str, unit: str = "short", stacked: bool = False
) -> Builder[Panel]:
    """Return a graph panel, which shows lines over time, a quarter of the dashboard wide."""
    return lines(shown(title, text, *queries, unit=unit, width=COLUMNS // 4), stacked=stacked)


def figure(
    title: str,
    text: str,
    query: tuple[str, str] | str,
    *limits: tuple[float, str],
    unit: str = "short",
) -> Builder[Panel]:
    """Return a panel with one number, a sixth of the dashboard wide. `limits` has pairs of a value and the
    colour of the number from that value on.
    """
    return number(shown(title, text, query, unit=unit, width=COLUMNS // 6, height=4), *limits)


def distribution(what: Shown) -> Builder[Panel]:
    """Return a heatmap panel, which shows the buckets of a histogram over time. Its query must be grouped by
    the label `le`.
    """
    panel = (
        heatmap.Panel()
        .title(what.title)
        .description(what.text)
        .datasource(SOURCE)
        .span(what.width)
        .height(what.height)
        .calculate(False)
    )
    for query in what.queries:
        panel = panel.with_target(
            Dataquery().expr(query.expr).legend_format(query.legend).range().format(PromQueryFormat.HEATMAP)
        )
    return panel


def rows_of(what: Shown, units: Sequence[str], hidden: Sequence[str]) -> Builder[Panel]:
    """Return a table panel with a column for each query, whose rows are joined by their labels. `units` has
    the unit of each column, and `hidden` the columns that are not shown.
    """
    panel = (
        table.Panel()
        .title(what.title)
        .description(what.text)
        .datasource(SOURCE)
        .span(what.width)
        .height(what.height)
        .filterable(True)
        .with_transformation(DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": dict.fromkeys(hidden, True),
                    "renameByName": {
                        f"Value #{letter}": query.legend
                        for letter, query in zip(_letters(what.queries), what.queries, strict=True)
                    },
                },
            )
        )
    )
    for target in _targets(what.queries, as_table=True):
        panel = panel.with_target(target)
    return panel.overrides(
        [_Override(query.legend, unit) for query, unit in zip(what.queries, units, strict=True)]
    )


class _Override(Builder[DashboardFieldConfigSourceOverrides]):
    """Sets the unit of one column of a table panel."""

    def __init__(self, column: str, unit: str) -> None:
        self._made = DashboardFieldConfigSourceOverrides(
            matcher=MatcherConfig(id_val="byName", options=column),
            properties=[DynamicConfigValue(id_val="unit", value=unit)],
        )

    def build(self) -> DashboardFieldConfigSourceOverrides:
        """Return the setting as an object of Grafana's dashboard model."""
        return self._made


def _letters(queries: Sequence[Query]) -> list[str]:
    return [chr(ord("A") + index) for index in range(len(queries))]


def _targets(queries: Sequence[Query], *, as_table: bool = False) -> list[Dataquery]:
    made: list[Dataquery] = []
    for letter, query in zip(_letters(queries), queries, strict=True):
        target = Dataquery().ref_id(letter).expr(query.expr).legend_format(query.legend)
        made.append(target.instant().format(PromQueryFormat.TABLE) if as_table else target.range())
    return made
