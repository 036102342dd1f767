"""`oneseek merge`: both ways, over the mini base, and what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from adapters.bases import find_base
from adapters.ledger import Ledger
from adapters.lora.digest import base_digest
from adapters.registry.served import ServedAdapters
from server.__main__ import main
from server.config.settings import Settings
from server.live.catalogue import open_catalogue

Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONESEEK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def told(capsys: Out, *arguments: str) -> Any:
    assert main(["merge", *arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_a_merged_model_is_compared_and_can_be_served(tmp_path: Path, capsys: Out) -> None:
    made = told(capsys, "--adapter", "sv", "--output", "models/swedish", "--check", "logits")
    assert made["new"]
    assert made["adapter"]["name"] == "oneseek-mini-sv@v1.0"
    assert made["checks"]["logits"]["agreement"] == 1.0
    assert made["checks"]["logits"]["difference"] < 0.02 < made["checks"]["logits"]["effect"]
    found = find_base(tmp_path, Path("models/swedish"))
    assert base_digest(found.path) == made["digest"] != made["base"]["digest"]
    assert main(["merge", "--adapter", "sv", "--output", "models/swedish"]) == 0
    line = capsys.readouterr().out
    assert re.search(r"\bmodels/swedish: oneseek-mini \+ oneseek-mini-sv@v1\.0\b.*\b10\b", line)
    assert base_digest(found.path) == made["digest"]
    assert line.count("\n") == 1
    (entry,) = Ledger.open(tmp_path / "home" / "ledger").entries()
    assert (entry.record.action, entry.record.subject) == ("merge", "swedish")
    assert entry.record.outputs == {"model": made["digest"]}
    assert entry.record.inputs == {"base": made["base"]["digest"], "adapter": made["adapter"]["digest"]}


def test_adapters_become_one_that_is_found(tmp_path: Path, capsys: Out) -> None:
    place = "lora_adapters/both-v1"
    made = told(capsys, "--combine", "sv=0.7,en=0.3", "--output", place, "--rank", "8")
    assert made["weights"] == {"oneseek-mini-sv@v1.0": 0.7, "oneseek-mini-en@v1.0": 0.3}
    assert 0.01 < made["apart"] < 0.5
    served: ServedAdapters = open_catalogue(Settings(home=tmp_path / "home"), tmp_path).served
    assert served.resolve("both@v1").digest == made["digest"]
    parents = {served.resolve("oneseek-mini-sv").digest, served.resolve("oneseek-mini-en").digest}
    (entry,) = Ledger.open(tmp_path / "home" / "ledger").entries()
    assert entry.record.subject == "both@v1"
    assert entry.record.outputs == {"adapter": made["digest"]}
    assert parents == set(entry.record.inputs["parents"])


def test_adapters_become_a_version_in_the_registry(tmp_path: Path, capsys: Out) -> None:
    wanted = ["--combine", "sv=0.7,en=0.3", "--alias", "both"]
    made = told(capsys, *wanted)
    assert (made["name"], made["active"]) == ("both@v1.0", True)
    served: ServedAdapters = open_catalogue(Settings(home=tmp_path / "home"), tmp_path).served
    both, sv = served.resolve("both"), served.resolve("oneseek-mini-sv")
    assert both.digest == made["digest"]
    assert Path(made["path"]) == both.path == tmp_path / "home" / "registry" / "both" / "v1.0"
    (entry,) = Ledger.open(tmp_path / "home" / "ledger").entries()
    assert (entry.record.action, entry.record.subject) == ("merge", "both@v1.0")
    assert entry.record.outputs == {"adapter": both.digest}
    assert sv.digest in entry.record.inputs["parents"]
    assert entry.record.details["weights"] == made["weights"]
    rougher = told(capsys, *wanted, "--rank", "4")
    assert (rougher["name"], rougher["active"]) == ("both@v1.1", False)
    assert main(["merge", *wanted, "--version", "V1.1"]) == 2
    assert "version: both@V1.1 " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--adapter", "sv"], "output: "),
        (["--adapter", "sv", "--output", "out", "--alias", "both"], "alias: "),
        (["--combine", "sv=1,en=1"], "output: "),
        (["--combine", "sv=1,en=1", "--output", "out", "--alias", "both"], "alias: "),
        (["--combine", "sv=1,en=1", "--output", "out", "--version", "v2"], "version: "),
        (["--combine", "sv=1,en=1", "--alias", "base"], "reserved"),
        (["--combine", "sv=1,en=1", "--alias", "both", "--version", "x/y"], "version: "),
    ],
)
def test_where_the_result_goes_is_said_once(
    arguments: list[str], message: str, tmp_path: Path, capsys: Out
) -> None:
    assert main(["merge", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "home" / "registry").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--combine"),
        (["--adapter", "sv", "--combine", "sv=0.5,en=0.5"], 2, "--combine"),
        (["--adapter", "nobody"], 1, "'nobody'"),
        (["--combine", "sv=0.5,nobody=0.5"], 1, "'nobody'"),
        (["--combine", "sv"], 2, "combine"),
        (["--combine", "auto"], 2, "combine: "),
        (["--combine", "sv=x,en=1"], 2, "combine: "),
        (["--combine", "sv=1,en=1", "--density", "7"], 2, "density"),
        (["--combine", "sv=1,en=1", "--method", "magic"], 2, "magic"),
        (["--combine", "sv=1,en=1", "--output", "base"], 2, "reserved"),
    ],
)
def test_a_mistake_is_one_line_and_makes_nothing(
    arguments: list[str], code: int, message: str, tmp_path: Path, capsys: Out
) -> None:
    given = arguments if "--output" in arguments else [*arguments, "--output", "out"]
    assert main(["merge", *given]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
