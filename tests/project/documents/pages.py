"""The documents as tests see them: pages, fenced blocks, commands, links and headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    page: str
    """Path of the page, relative to the repository."""
    language: str
    """What stands after the fence; empty if nothing does."""
    number: int
    """Among the page's blocks, from 0."""
    text: str

    @property
    def commands(self) -> list[str]:
        """Commands of a console or an unnamed block, continued lines joined."""
        if self.language not in ("", "console", "sh"):
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line for line in lines if line.startswith(("oneseek ", "make "))]


def pages() -> list[Path]:
    """README, and every page under docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """Its path, relative to the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks() -> list[Block]:
    """Every fenced block of every page."""
    return [
        Block(name_of(page), language, number, text)
        for page in pages()
        for number, (language, text) in enumerate(_FENCE.findall(page.read_text(encoding="utf-8")))
    ]


def commands() -> list[tuple[str, str]]:
    """Every command with the page that shows it."""
    return [(block.page, command) for block in blocks() for command in block.commands]


def links(page: Path) -> list[str]:
    """Targets of the links outside of fenced blocks."""
    return _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in _HEADING.findall(text)
    }
