"""Draw the panels of the board from a server under load: `make board-picture`.

The server, the Prometheus and the queries are those of the tests; Grafana itself is not run.
"""

from __future__ import annotations

import argparse
import math
import re
import tempfile
import time
from io import BytesIO
from pathlib import Path

import httpx
import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox
from PIL import Image

from tests.deploy.watching.board_queries import BoardPanel, panels
from tests.deploy.watching.watched import DIVIDED, METRICS_KEY, loaded_server, prometheus

STEP = 1
ACROSS = 4
SIGNS = {"s": "s", "reqps": "1/s", "ops": "1/s", "percentunit": "share", "bytes": "bytes"}
Line = tuple[str, dict[str, str], list[tuple[float, float]]]
"""Legend, labels, and times with values."""
LABELS = 6
"""Most lines of a panel that get a legend."""


def main() -> None:
    """Load a server for a while, ask every query of the board, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prometheus", required=True, help="the program")
    parser.add_argument("--out", required=True, type=Path, help="the picture")
    parser.add_argument("--seconds", type=int, default=60, help="how long the server is asked")
    given = parser.parse_args()
    mpl.use("agg")
    with tempfile.TemporaryDirectory(prefix="oneseek-board-") as scratch:
        folder = Path(scratch)
        with (
            loaded_server(folder) as server,
            prometheus(given.prometheus, folder / "prometheus", server.url, METRICS_KEY) as client,
        ):
            time.sleep(given.seconds)
            end = time.time()
            drawn = [
                (panel, answers(client, panel, end - given.seconds * 0.8, end)) for panel in panels(DIVIDED)
            ]
    draw(drawn, given.out)


def answers(client: httpx.Client, panel: BoardPanel, begin: float, end: float) -> list[Line]:
    """Each line of a panel: its legend, and times with values."""
    found: list[Line] = []
    for query, legend in panel.queries:
        asked = {"query": query, "start": begin, "end": end, "step": STEP}
        result = client.get("/query_range", params=asked).json()["data"]["result"]
        found += [
            (named(legend, one["metric"]), one["metric"], _points(one["values"], begin)) for one in result
        ]
    return found


def _points(values: list[tuple[float, str]], begin: float) -> list[tuple[float, float]]:
    return [(at - begin, float(text)) for at, text in values]


def named(legend: str, labels: dict[str, str]) -> str:
    """A legend with its labels filled in, as Grafana does."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend).strip()


def draw(drawn: list[tuple[BoardPanel, list[Line]]], out: Path) -> None:
    """All panels in a grid, the first of each row with the row's title."""
    down = math.ceil(len(drawn) / ACROSS)
    pyplot.rcParams.update({"font.size": 6.5, "axes.titlesize": 7.5, "axes.spines.top": False})
    figure, grid = pyplot.subplots(down, ACROSS, figsize=(3.1 * ACROSS, 1.75 * down), squeeze=False)
    axes: list[Axes] = list(grid.flat)
    for axis, (panel, series) in zip(axes, drawn, strict=False):
        _draw_one(axis, panel, series)
    for axis in axes[len(drawn) :]:
        axis.axis("off")
    figure.tight_layout()
    with BytesIO() as picture:
        figure.savefig(picture, dpi=110)
        # A quarter of the bytes, and nobody sees it.
        Image.open(picture).convert("P", palette=Image.Palette.ADAPTIVE, colors=96).save(out, optimize=True)
    print(f"{out}: {len(drawn)} panels")


def _draw_one(axis: Axes, panel: BoardPanel, series: list[Line]) -> None:
    axis.set_title(f"{panel.row} · {panel.title}".replace("$adapter", DIVIDED), loc="left")
    draw_kind = {"stat": _draw_number, "table": _draw_table, "heatmap": _draw_buckets}
    draw_kind.get(panel.kind, _draw_lines)(axis, panel, series)


def _draw_lines(axis: Axes, panel: BoardPanel, series: list[Line]) -> None:
    for legend, _, points in series:
        axis.plot([x for x, _ in points], [y for _, y in points], label=legend or None, linewidth=0.9)
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        axis.legend(handles[:LABELS], labels[:LABELS], fontsize=5, frameon=False)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25)
    axis.set_ylabel(SIGNS.get(panel.unit, ""))


def _draw_number(axis: Axes, panel: BoardPanel, series: list[Line]) -> None:
    """The last value, large, or what its label says; the recent past behind it."""
    for legend, _, points in series:
        axis.fill_between([x for x, _ in points], [y for _, y in points], alpha=0.15)
        last = points[-1][1]
        number = f"{last:.1%}" if panel.unit == "percentunit" else f"{last:.3g} {SIGNS.get(panel.unit, '')}"
        text = legend or number
        axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", fontsize=16)
    axis.set_ylim(bottom=0)
    axis.axis("off")


def _draw_table(axis: Axes, panel: BoardPanel, series: list[Line]) -> None:
    """A line for each adapter and version, a column for each query."""
    columns = [legend for _, legend in panel.queries]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for legend, labels, points in series:
        name = labels.get("adapter", ""), labels.get("version", "")
        cells.setdefault(name, {})[legend] = f"{points[-1][1]:.2g}"
    rows = [["@".join(name), *(row.get(one, "") for one in columns)] for name, row in sorted(cells.items())]
    heads = ["", *(one.replace(" ", "\n", 1) for one in columns)]
    drawn = axis.table(
        rows, colLabels=heads, cellLoc="left", edges="horizontal", bbox=Bbox.from_bounds(0, 0, 1, 1)
    )
    drawn.set_in_layout(False)
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(4.5)
    drawn.auto_set_column_width(list(range(len(heads))))
    axis.axis("off")


def _draw_buckets(axis: Axes, panel: BoardPanel, series: list[Line]) -> None:
    """How much falls between one bucket's end and the next, over time."""
    ordered = sorted(series, key=lambda line: float(line[0]))
    sums = [[y for _, y in points] for _, _, points in ordered]
    size = min(len(values) for values in sums)
    between = [
        [high - low for low, high in zip(below[:size], values[:size], strict=True)]
        for below, values in zip([[0.0] * size, *sums], sums, strict=False)
    ]
    axis.pcolormesh(range(size), range(len(between)), between, cmap="Blues")
    axis.set_yticks(range(len(between)), [legend for legend, _, _ in ordered], fontsize=4.5)


if __name__ == "__main__":
    main()
