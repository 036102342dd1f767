"""What a parser and reading can tell of serve.ps1: no PowerShell is at hand to run it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

from server.__main__ import main
from server.engines.embedded.runners.device.flavours import PINNED
from server.engines.embedded.runners.windowsml.catalogue import PINNED as CATALOGUE

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "deploy" / "windows" / "serve.ps1"
SCRIPT = FILE.read_text(encoding="utf-8")


def parsed(script: str) -> Node:
    """The root of a script's tree."""
    return Parser(Language(tree_sitter_powershell.language())).parse(script.encode()).root_node


TREE = parsed(SCRIPT)


def nodes(kind: str, under: Node = TREE) -> Iterator[Node]:
    """Every node of a kind, in order."""
    if under.type == kind:
        yield under
    for child in under.children:
        yield from nodes(kind, child)


def text(node: Node) -> str:
    return (node.text or b"").decode()


def function(name: str) -> str:
    """The text of a function."""
    (found,) = (node for node in nodes("function_statement") if text(node).split()[1] == name)
    return text(found)


def code(script: str) -> str:
    """The script without comments and without what stands in single quotes."""
    lines = [re.sub(r"'[^']*'", "''", line) for line in script.splitlines()]
    return "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in lines)


def test_windows_own_powershell_reads_it_as_it_is_written() -> None:
    """Version 5.1 takes a file without a mark for one in the local 8-bit encoding."""
    assert FILE.read_bytes().isascii()


def test_a_parser_reads_all_of_it() -> None:
    assert not TREE.has_error
    for broken in (
        SCRIPT.replace("exit $code", "exit $code }"),
        SCRIPT.replace("function Say(", "function Say"),
    ):
        assert Parser(Language(tree_sitter_powershell.language())).parse(broken.encode()).root_node.has_error


def test_nothing_that_only_newer_versions_have() -> None:
    assert not re.search(r"&&|\|\||\?\?|\?\.|\s\?\s.+\s:\s", code(SCRIPT))


@pytest.mark.parametrize(("flavour", "version"), PINNED.items())
def test_it_installs_the_pinned_flavours(flavour: str, version: str) -> None:
    assert f"'{flavour}=={version}'" in SCRIPT
    assert f"'{flavour}'" in SCRIPT, "and removes it before another"


def test_windows_mls_catalogue_is_the_pinned_one_and_for_its_device_alone() -> None:
    assert f"$catalogue = 'windowsml=={CATALOGUE}'" in SCRIPT
    asking = SCRIPT.index("if ($device -eq 'windowsml' -and $listed -ne $catalogue)")
    assert SCRIPT.index("Invoke-Pip install --quiet --no-deps $catalogue") > asking


def test_every_pip_command_is_checked() -> None:
    lines = [line for line in SCRIPT.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if ("Invoke-Pip " in line and "function" not in line) or " -m venv " in line:
            assert "$LASTEXITCODE -ne 0" in lines[number + 1], line


def test_what_programs_write_to_stderr_ends_nothing() -> None:
    """Version 5.1 makes an error of it where the output is redirected, and `Stop` would end the script."""
    continuing = "$ErrorActionPreference = 'Continue'"
    calls = [node for node in nodes("command") if text(node).startswith("& ")]
    assert len(calls) == 3
    inside = [function(name) for name in ("Invoke-Program", "Get-Device", "Find-Python")]
    for call in calls:
        (home,) = (body for body in inside if text(call) in body)
        assert home.splitlines()[1].strip() == continuing
    assert "$PSNativeCommandUseErrorActionPreference = $false" in SCRIPT


def test_a_folder_with_brackets_is_a_folder() -> None:
    named = ("Test-Path", "Get-Item", "Get-Content", "Set-Content", "Remove-Item", "Push-Location")
    commands = [text(node) for node in nodes("command")]
    paths = [command for command in commands if command.split()[0] in named]
    assert len(paths) > 10
    assert not [command for command in paths if " -LiteralPath " not in command]
    assert not [command for command in commands if command.split()[0] == "New-Item"]
    assert [command for command in commands if command.endswith("--editable .")], (
        "in pip's words [x] is an extra"
    )


def test_a_list_from_a_prompt_reaches_the_server_as_one_text() -> None:
    assert "$words = @(foreach ($word in $args) { @($word) -join ',' })" in SCRIPT
    (serve,) = (text(node) for node in nodes("command") if " -m server serve" in text(node))
    (config,) = (text(node) for node in nodes("command") if " -m server config" in text(node))
    assert serve.endswith("serve @words")
    assert config.endswith("config @words 2>$null"), "device may be a flag, a variable or in oneseek.yaml"


def test_the_device_is_read_from_what_config_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "oneseek.yaml"
    file.write_text("device: webgpu\n", encoding="utf-8")
    assert main(["config", "--config", str(file)]) == 0
    pattern = re.search(r"-match '([^']+)'", function("Get-Device"))
    assert pattern is not None
    lines = capsys.readouterr().out.splitlines()
    (device,) = [found[1] for line in lines if (found := re.match(pattern[1], line))]
    assert device == "webgpu"


def test_the_first_run_installs_one_flavour() -> None:
    """The serving set brings DirectML's; that is noted, so that nothing puts it in its own place."""
    installing = SCRIPT.index("Invoke-Pip install --quiet --editable .")
    noted = SCRIPT.index("Set-Content -LiteralPath $flavourFile -Value $had")
    assert installing < noted < SCRIPT.index("$wanted = ")
    assert "else { $flavours['directml'] }" in SCRIPT[installing:noted]


def test_a_half_made_environment_is_made_again() -> None:
    making = SCRIPT.index(" -m venv --clear $venv")
    assert "if (-not $whole -or " in SCRIPT[:making]
    assert SCRIPT.index("Set-Content -LiteralPath $made") > making


def test_looking_for_a_python_installs_none() -> None:
    body = function("Find-Python")
    name = "$env:PYTHON_MANAGER_AUTOMATIC_INSTALL"
    assert body.index(f"{name} = 'false'") < body.index("& $candidate[0]") < body.index(f"{name} = $before")


def test_every_variable_is_set_before_it_is_read() -> None:
    known = {
        "null",
        "true",
        "false",
        "args",
        "lastexitcode",
        "psscriptroot",
        "erroractionpreference",
        "matches",
    }
    for line in code(SCRIPT).splitlines():
        known |= {name.lower() for name in re.findall(r"\$(\w+)\s*=[^=]", line)}
        known |= {name.lower() for name in re.findall(r"\[string(?:\[\])?\] \$(\w+)\)", line)}
        known |= {name.lower() for name in re.findall(r"foreach \(\$(\w+) in", line)}
        used = {name.lower() for name in re.findall(r"[$@](\w+)", line)} - {"env"}
        assert used <= known, line
