"""What a parser and reading can tell of install.ps1 and verify.ps1: no PowerShell is at hand to run them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_powershell
import yaml
from tree_sitter import Language, Node, Parser

from server.__main__ import main

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "windows"
NAMES = ("install.ps1", "verify.ps1")
NEWER = r"&&|\|\||\?\?|\?\.|\s\?\s.+\s:\s"
"""What version 5.1 of PowerShell does not know."""


def script(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def parsed(text: str) -> Node:
    return Parser(Language(tree_sitter_powershell.language())).parse(text.encode()).root_node


def nodes(kind: str, under: Node) -> Iterator[Node]:
    if under.type == kind:
        yield under
    for child in under.children:
        yield from nodes(kind, child)


def commands(name: str) -> list[str]:
    return [(node.text or b"").decode() for node in nodes("command", parsed(script(name)))]


def code(text: str) -> str:
    """Without comments and what stands in single quotes."""
    lines = [re.sub(r"'[^']*'", "''", line) for line in text.splitlines()]
    return "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_a_parser_reads_all_of_it(name: str) -> None:
    assert not parsed(script(name)).has_error
    assert parsed(script(name) + "\n}").has_error


@pytest.mark.parametrize("name", NAMES)
def test_windows_own_powershell_reads_it_as_it_is_written(name: str) -> None:
    assert (FOLDER / name).read_bytes().isascii()
    assert not re.search(NEWER, code(script(name)))


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_with_brackets_is_a_folder(name: str) -> None:
    named = ("Test-Path", "Get-Content", "Set-Content", "Push-Location")
    paths = [command for command in commands(name) if command.split()[0] in named]
    assert paths
    assert not [command for command in paths if " -LiteralPath " not in command]


@pytest.mark.parametrize("name", NAMES)
def test_programs_run_where_their_standard_error_ends_nothing(name: str) -> None:
    """Version 5.1 makes an error of what a program writes there, and `Stop` would end the script."""
    continuing = "$ErrorActionPreference = 'Continue'"
    text = script(name)
    for found in re.finditer(r"^.*[(= ]& \$args\[0\].*$|^ *& \$args\[0\].*$", text, re.MULTILINE):
        start = text.rindex("\nfunction ", 0, found.start())
        assert continuing in text[start : found.start()]


def test_every_function_that_is_called_is_there() -> None:
    for name in NAMES:
        text = script(name)
        own = set(re.findall(r"^function ([A-Za-z-]+)", text, re.MULTILINE))
        called = {command.split()[0] for command in commands(name)}
        assert own <= called | {"Get-CommandLine", "Get-FirstLine", "Get-AllText"}
        assert {one for one in called if one in ("Say", "Stop-With", "Add-Line")} <= own


def test_what_is_installed_listens_to_this_machine_alone_and_can_be_removed() -> None:
    text = script("install.ps1")
    assert "serve --host 127.0.0.1 " in text
    (rule,) = (command for command in commands("install.ps1") if command.startswith("New-NetFirewallRule"))
    assert "-Direction Inbound -Action Block -Protocol TCP -LocalPort $port" in rule
    assert "-Program" not in rule, "of a .venv, the process that listens is another program"
    remove = text[text.index("function Remove-All") :]
    remove = remove[: remove.index("\n}")]
    for made, undone in (
        ("Register-ScheduledTask", "Unregister-ScheduledTask"),
        ("New-NetFirewallRule", "Remove-NetFirewallRule"),
    ):
        assert made in text
        assert undone in remove


def test_what_needs_an_administrator_is_asked_before_anything_changes() -> None:
    text = script("install.ps1")
    body = text[text.index("if (-not (Test-Administrator))") :]
    for change in ("Remove-All\n[IO", "Grant-ToService", "New-NetFirewallRule", "Register-Task\n"):
        assert body.index(change) > body.index("exit 0")


def test_a_report_names_nobody() -> None:
    text = script("verify.ps1")
    assert "foreach ($private in @($env:USERPROFILE, $env:USERNAME, $env:COMPUTERNAME))" in text
    written = [line for line in text.splitlines() if "$lines.Add(" in line]
    assert [line.strip() for line in written] == ["$lines.Add($shown)"]


def test_the_account_may_read_every_folder_that_the_task_runs_from() -> None:
    granted = [command for command in commands("install.ps1") if command.startswith("Grant-ToService ")]
    assert granted == [
        "Grant-ToService $place 'M'",
        "Grant-ToService $root 'RX'",
        "Grant-ToService (Get-BaseFolder) 'RX'",
    ]


def test_the_port_that_is_blocked_is_the_one_that_config_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--port", "8123"]) == 0
    pattern = re.search(r"-match '(\^port[^']+)'", script("install.ps1"))
    assert pattern is not None
    lines = capsys.readouterr().out.splitlines()
    assert [found[1] for line in lines if (found := re.match(pattern[1], line))] == ["8123"]


@pytest.mark.parametrize("words", [["config", "--help"], ["devices", "--help"], ["--version"]])
def test_the_verbs_that_the_scripts_use_are_there(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out


def test_a_workflow_runs_the_verification_on_the_cpu() -> None:
    workflow = yaml.safe_load((FOLDER.parents[1] / ".github/workflows/test.yml").read_text("utf-8"))
    steps = [step.get("run", "") for step in workflow["jobs"]["windows-verify"]["steps"]]
    verified = [step for step in steps if "verify.ps1" in step]
    assert [step.rsplit("\\", 1)[1] for step in verified] == ["verify.ps1 cpu"]
    assert any("pip install" in step for step in steps[: steps.index(verified[0])])
