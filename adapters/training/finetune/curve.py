"""Draw the loss curve of a training as a PNG image, and as a few lines of text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.files.atomic import staged_file

if TYPE_CHECKING:
    from adapters.training.loop.callbacks import Curve

_BARS = "▁▂▃▄▅▆▇█"


def write_png(path: Path, curve: Curve, title: str, measured: str = "loss on answer tokens") -> None:
    """Write a PNG image of the training loss and held-out loss at each step to `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for points, label, marker in ((curve.train, "training", ""), (curve.held_out, "held out", "o")):
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker=marker)
    axes.set(title=title, xlabel="step", ylabel=measured)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    with staged_file(path) as temporary:
        figure.savefig(temporary, format="png")


def terminal_lines(curve: Curve, width: int = 60) -> list[str]:
    """Return a line of text for the training loss and one for the held-out loss: the first value, a curve of
    bars, and the last value.
    """
    found: list[str] = []
    for name, points in (("loss", curve.train), ("held-out loss", curve.held_out)):
        values = [value for _, value in points if math.isfinite(value)]
        if values:
            found.append(f"{name:>14}  {values[0]:.3f} {_bars(values, width)} {values[-1]:.3f}")
    return found


def _bars(values: Sequence[float], width: int) -> str:
    """Draw `values` as at most `width` bar characters. Each bar is the mean of the values it stands for."""
    count = min(width, len(values))
    shares = [values[n * len(values) // count : (n + 1) * len(values) // count] for n in range(count)]
    means = [sum(share) / len(share) for share in shares]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)
