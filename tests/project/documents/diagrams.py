"""The two diagrams of docs/architecture.md, drawn from the lists below.

python -m tests.project.documents.diagrams     # write docs/pictures/*.svg
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from tests.project.documents.pages import ROOT

PICTURES = ROOT / "docs" / "pictures"
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 168, 62, 34, 40, 12
"""Pixels: a box, the space between boxes, and the space around all."""
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1b1f24 }
  .small { font-size: 11px; fill: #57606a }
  rect { fill: #f6f8fa; stroke: #8c959f }
  path { fill: none; stroke: #57606a; marker-end: url(#head) }
  marker path { fill: #57606a; stroke: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 }
    rect { fill: #161b22; stroke: #6e7681 } path { stroke: #9198a1 } marker path { fill: #9198a1 }
  }
"""


@dataclass(frozen=True, slots=True)
class Box:
    """A step, with the folder that it is in or what is said of it."""

    title: str
    note: str
    column: int
    row: int

    @property
    def x(self) -> int:
        """Left edge."""
        return MARGIN + self.column * (WIDTH + GAP_X)

    @property
    def y(self) -> int:
        """Upper edge."""
        return MARGIN + self.row * (HEIGHT + GAP_Y)


REQUEST = (
    Box("bytes", "a client's request", 0, 0),
    Box("parse and bound", "server/asgi, server/api", 1, 0),
    Box("choose the adapter", "routing", 2, 0),
    Box("resolve to a digest", "server/serving", 3, 0),
    Box("template and tokens", "server/text", 3, 1),
    Box("one batch", "server/engines", 2, 1),
    Box("deltas", "an async iterator", 1, 1),
    Box("JSON or events", "with the receipt", 0, 1),
)
LIFE = (
    Box("data", "adapters/datasets", 0, 0),
    Box("train or import", "adapters/training, pth", 1, 0),
    Box("check", "adapters/lora", 2, 0),
    Box("version", "adapters/registry", 3, 0),
    Box("load and probe", "server/live", 3, 1),
    Box("canary", "server/rollout", 2, 1),
    Box("promote", "the alias moves", 1, 1),
    Box("retire", "references drain", 0, 1),
    Box("ledger", "each step is signed", 1, 2),
)
ARROWS = {
    "request": [(index, index + 1) for index in range(7)],
    "adapter": [*((index, index + 1) for index in range(7)), (6, 8)],
}
PARTS = {"request": REQUEST, "adapter": LIFE}
TITLES = {
    "request": "The way of a request, from bytes to an answer with its receipt",
    "adapter": "The life of an adapter, from data to a version that is retired",
}


def draw(name: str) -> str:
    """One diagram as SVG."""
    boxes = PARTS[name]
    width = max(box.x for box in boxes) + WIDTH + MARGIN
    height = max(box.y for box in boxes) + HEIGHT + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="title">',
        f'<title id="title">{escape(TITLES[name])}</title>',
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker></defs>',
    ]
    lines += [_arrow(boxes[start], boxes[end]) for start, end in ARROWS[name]]
    for box in boxes:
        x, note = box.x + WIDTH // 2, escape(box.note)
        lines += [
            f'<rect x="{box.x}" y="{box.y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            f'<text x="{x}" y="{box.y + 27}" text-anchor="middle">{escape(box.title)}</text>',
            f'<text x="{x}" y="{box.y + 46}" text-anchor="middle" class="small">{note}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def _arrow(start: Box, end: Box) -> str:
    if start.row == end.row:
        right = end.column > start.column
        x1, x2 = (start.x + WIDTH, end.x - 2) if right else (start.x, end.x + WIDTH + 2)
        y = start.y + HEIGHT // 2
        return f'<path d="M{x1} {y} L{x2} {y}"/>'
    x = start.x + WIDTH // 2
    return f'<path d="M{x} {start.y + HEIGHT} L{x} {end.y - 2}"/>'


def path(name: str) -> Path:
    """The file of a diagram."""
    return PICTURES / f"{name}.svg"


def main() -> None:
    """Write both."""
    PICTURES.mkdir(exist_ok=True)
    for name in PARTS:
        path(name).write_text(draw(name), encoding="utf-8")


if __name__ == "__main__":
    main()
