"""What reading can tell of serve.ps1: no Windows is at hand to run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.engines.embedded.runners.device.flavours import PINNED

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "deploy" / "windows" / "serve.ps1"
SCRIPT = FILE.read_text(encoding="utf-8")


def code(script: str) -> str:
    """The script without comments and without what stands in single quotes."""
    lines = [re.sub(r"'[^']*'", "''", line) for line in script.splitlines()]
    return "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in lines)


def balanced(script: str) -> bool:
    waiting: list[str] = []
    for character in code(script):
        if character in "([{":
            waiting.append(")]}"["([{".index(character)])
        elif character in ")]}" and (not waiting or waiting.pop() != character):
            return False
    return not waiting and code(script).count('"') % 2 == 0


def test_windows_own_powershell_reads_it_as_it_is_written() -> None:
    """Version 5.1 takes a file without a mark for one in the local 8-bit encoding."""
    assert FILE.read_bytes().isascii()


def test_brackets_and_quotes_close() -> None:
    assert balanced(SCRIPT)
    assert not balanced(SCRIPT.replace("exit $code", "exit $code }"))
    assert not balanced(SCRIPT.replace("function Say(", "function Say"))


def test_nothing_that_only_newer_versions_have() -> None:
    assert not re.search(r"&&|\|\||\?\?|\?\.|\s\?\s.+\s:\s", code(SCRIPT))


@pytest.mark.parametrize(("flavour", "version"), PINNED.items())
def test_it_installs_the_pinned_flavours(flavour: str, version: str) -> None:
    assert f"'{flavour}=={version}'" in SCRIPT
    assert f"'{flavour}'" in SCRIPT, "and removes it before another"


def test_every_pip_command_is_checked() -> None:
    lines = [line for line in SCRIPT.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if ("Invoke-Pip " in line and "function" not in line) or " -m venv " in line:
            assert "$LASTEXITCODE -ne 0" in lines[number + 1], line


def test_what_programs_write_to_stderr_ends_nothing() -> None:
    """Version 5.1 makes an error of it where the output is redirected, and `Stop` would end the script."""
    (pip,) = (at for at, line in enumerate(SCRIPT.splitlines()) if " -m pip " in line)
    (serve,) = (at for at, line in enumerate(SCRIPT.splitlines()) if " -m server serve " in line)
    going_on = "$ErrorActionPreference = 'Continue'"
    assert SCRIPT.splitlines()[pip - 1].strip() == going_on
    assert going_on in SCRIPT.splitlines()[serve - 3 : serve]
    assert "$PSNativeCommandUseErrorActionPreference = $false" in SCRIPT


def test_every_variable_is_set_before_it_is_read() -> None:
    known = {"null", "true", "false", "args", "lastexitcode", "psscriptroot", "erroractionpreference"}
    for line in code(SCRIPT).splitlines():
        known |= {name.lower() for name in re.findall(r"\$(\w+)\s*=[^=]", line)}
        known |= {name.lower() for name in re.findall(r"\[string(?:\[\])?\] \$(\w+)\)", line)}
        known |= {name.lower() for name in re.findall(r"foreach \(\$(\w+) in", line)}
        used = {name.lower() for name in re.findall(r"[$@](\w+)", line)} - {"env"}
        assert used <= known, line
