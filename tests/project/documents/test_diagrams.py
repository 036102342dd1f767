"""The diagrams are what their source draws, and the folders that they name exist."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tests.project.documents.diagrams import PARTS, draw, path
from tests.project.documents.pages import ROOT


@pytest.mark.parametrize("name", sorted(PARTS))
def test_a_diagram_is_what_its_source_draws(name: str) -> None:
    """`python -m tests.project.documents.diagrams` writes them."""
    text = path(name).read_text(encoding="utf-8")
    assert text == draw(name)
    assert ElementTree.fromstring(text).tag.endswith("svg")


@pytest.mark.parametrize("name", sorted(PARTS))
def test_the_folders_that_it_names_exist(name: str) -> None:
    folders = {word for box in PARTS[name] for word in re.findall(r"[a-z]+/[a-z]+", box.note)}
    assert folders
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []
