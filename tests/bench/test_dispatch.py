"""`oneseek bench VERB`: what it calls, and what it says of a verb that is not one."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import bench
from bench.cli.dispatch import COMMANDS, VERBS, main, usage

ROOT = Path(bench.__file__).parent.parent


def test_every_verb_is_a_module_and_in_the_usage() -> None:
    for name, verb in (VERBS | COMMANDS).items():
        assert importlib.util.find_spec(verb.module), name
        assert f"  {name} " in usage()


def test_oneseek_passes_options_on() -> None:
    command = [sys.executable, "-m", "server", "bench", "host", "--python", sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout)["cores"] >= 1


@pytest.mark.parametrize("name", VERBS | COMMANDS)
def test_the_help_of_a_verb_is_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    usage_line = capsys.readouterr().out.split("\n")[0]
    assert re.match(rf"usage: (oneseek bench {name}|python -m bench\.{name})\b", usage_line)


def test_an_unknown_verb_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compair"]) == 2
    assert "compare" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["run", "host"])
def test_ctrl_c_is_130_even_before_a_verb_begins(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> ModuleType:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert main([name]) == 130
