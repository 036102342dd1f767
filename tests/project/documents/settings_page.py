"""The table of settings in docs/settings.md.

python -m tests.project.documents.settings_page     # write it anew
"""

from __future__ import annotations

import re

from server.config.settings import OPTIONS, PREFIX
from tests.project.documents.pages import ROOT

PAGE = ROOT / "docs" / "settings.md"
TABLE = re.compile(r"\| setting \| variable .*?(?=\n\n|\n\Z)", re.DOTALL)


def settings_table() -> str:
    """The table, from the schema."""
    rows = ["| setting | variable | default | |", "|---|---|---|---|"]
    for option in OPTIONS:
        default = "" if option.default in (None, (), {}) else f"`{option.render(option.default)}`"
        if option.path == "home":
            default = "`~/.oneseek`"
        rows.append(f"| `{option.name}` | `{option.variable(PREFIX)}` | {default} | {option.explained} |")
    return "\n".join(rows)


def main() -> None:
    """Write the page."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda _: settings_table(), text), encoding="utf-8")


if __name__ == "__main__":
    main()
