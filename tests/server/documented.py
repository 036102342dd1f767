"""What docs/api.md says of each field."""

from __future__ import annotations

import re
from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs" / "api.md"


def documented(heading: str) -> dict[str, str]:
    """Field → kind, of the section under `heading`; fails where a field is listed twice."""
    _, _, rest = _DOCS.read_text("utf-8").partition(f"\n## {heading}\n")
    section = rest.partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| (honoured|hint|refused) \|", section, re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a field is listed twice"
    return dict(rows)
