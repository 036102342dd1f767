"""The README tells the truth: its tables, its settings file and its commands."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import pytest

from server.__main__ import main
from server.config.settings import OPTIONS, PREFIX, resolve_settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(README) if kind == language]


def should_be(readme: str) -> None:
    """Fail with a patch for `git apply` unless README.md is `readme`."""
    is_now, wanted = README.splitlines(keepends=True), readme.splitlines(keepends=True)
    patch = "".join(difflib.unified_diff(is_now, wanted, "a/README.md", "b/README.md"))
    if patch:
        pytest.fail(f"apply this and word it well:\n\n{patch}", pytrace=False)


def settings_table() -> str:
    rows = ["| setting | variable | default | |", "|---|---|---|---|"]
    for option in OPTIONS:
        default = "" if option.default in (None, (), {}) else f"`{option.render(option.default)}`"
        if option.path == "home":
            default = "`~/.oneseek`"
        rows.append(f"| `{option.name}` | `{option.variable(PREFIX)}` | {default} | {option.explained} |")
    return "\n".join(rows)


def test_the_table_of_settings_is_the_schema() -> None:
    found = re.search(r"\| setting \| variable .*?(?=\n\n)", README, re.DOTALL)
    assert found
    should_be(README.replace(found[0], settings_table()))


@pytest.mark.parametrize("sample", blocks("yaml"))
def test_the_sample_settings_files_are_valid(sample: str, tmp_path: Path) -> None:
    file = tmp_path / "oneseek.yaml"
    file.write_text(sample, encoding="utf-8")
    origins = resolve_settings(environ={}, config=file).origins
    assert sum(origin.startswith("oneseek.yaml:") for origin in origins.values()) > 1


def commands() -> list[str]:
    lines = "".join(blocks("console")).replace("\\\n", "").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def test_commands_are_marked_so_that_they_can_be_run() -> None:
    assert any(command.startswith("curl ") for command in commands())
    for block in blocks("console"):
        assert block.startswith("$ "), f"a console block starts with a command: {block!r}"


@pytest.mark.parametrize("command", [command for command in commands() if command.startswith("oneseek ")])
def test_every_verb_that_is_shown_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb = [word for word in command.split()[1:3] if re.fullmatch("[a-z]+", word)]
    assert main([*verb, "--help"]) == 0
    assert f"Usage: oneseek {verb[0]}" in capsys.readouterr().out


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|\$ )make ([a-z]+)", README))))
def test_every_make_target_that_is_named_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_link_to_a_file_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
