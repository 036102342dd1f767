"""README is short, and the table of settings is the schema."""

from __future__ import annotations

import difflib
import re

import pytest

from tests.project.documents.pages import ROOT
from tests.project.documents.settings_page import PAGE, TABLE, settings_table


def test_the_table_of_settings_is_the_schema() -> None:
    """`python -m tests.project.documents.settings_page` writes it."""
    text = PAGE.read_text(encoding="utf-8")
    found = TABLE.search(text)
    assert found
    wanted = text.replace(found[0], settings_table())
    patch = "".join(difflib.unified_diff(text.splitlines(keepends=True), wanted.splitlines(keepends=True)))
    if patch:
        pytest.fail(f"run python -m tests.project.documents.settings_page:\n\n{patch}", pytrace=False)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_commands_are_marked_so_that_they_can_be_run() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```console\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL):
        assert block.startswith("$ "), f"a console block starts with a command: {block!r}"
