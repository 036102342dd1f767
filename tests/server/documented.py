"""What docs/api.md says of each field, and what it should say. Run it to write the tables anew."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from server.api.fields.tables import (
    EMBEDDINGS,
    RESPONSES,
    TOKENIZE,
    FieldDescription,
    describe_generation,
)

_DOCS = Path(__file__).parents[2] / "docs" / "api.md"
_ROW = re.compile(r"^\| `([a-z0-9_]+)` \| (honoured|ignored|refused) \|.*\n", re.MULTILINE)


def described() -> dict[str, Mapping[str, FieldDescription]]:
    """Heading → the table that stands below it."""
    return {
        "Request fields": describe_generation(),
        "Responses": RESPONSES.describe(),
        "Embeddings": EMBEDDINGS.describe(),
        "Tokens": TOKENIZE.describe(),
    }


def documented(heading: str) -> dict[str, str]:
    """Field → kind, of the section under `heading`; fails where a field is listed twice."""
    rows = [(found[1], found[2]) for found in _ROW.finditer(_section(_DOCS.read_text("utf-8"), heading))]
    assert len(rows) == len(dict(rows)), "a field is listed twice"
    return dict(rows)


def documented_rows(heading: str) -> str:
    """The rows of the section under `heading`, as they stand."""
    return "".join(found[0] for found in _ROW.finditer(_section(_DOCS.read_text("utf-8"), heading)))


def rendered_rows(table: Mapping[str, FieldDescription]) -> str:
    """The rows as the code has them."""
    return "".join(f"| `{name}` | {row.kind} | {row.note} |\n" for name, row in table.items())


def _section(text: str, heading: str) -> str:
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def _write() -> None:
    text = _DOCS.read_text("utf-8")
    for heading, table in described().items():
        old = _section(text, heading)
        first = old.index("|---|---|---|\n") + len("|---|---|---|\n")
        text = text.replace(old, old[:first] + rendered_rows(table) + _ROW.sub("", old[first:]))
    _DOCS.write_text(text, "utf-8")


if __name__ == "__main__":
    _write()
