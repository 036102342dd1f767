"""A home that an earlier release made goes on: listed, verified, changed, added to, served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.bases import SHIPPED
from adapters.home import FORMAT, FORMAT_FILE, read_format
from adapters.ledger import Ledger
from server.__main__ import main
from server.config.settings import resolve_settings
from server.engines.embedded.model.cache import MANIFEST_FILE, prepare
from server.jobs.evaluation import running_server
from tests.server.surroundings import start_afresh

Out = pytest.CaptureFixture[str]
OLD = Path(__file__).parents[2] / "homes" / "format-1"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old home; the working directory is empty, so that the mini base is served."""
    shutil.copytree(OLD, tmp_path / "home")
    (tmp_path / "home" / "ledger" / "key.pem").chmod(0o600)  # Git keeps no modes
    (tmp_path / "empty").mkdir()
    start_afresh(monkeypatch, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "home"


def told(capsys: Out, *arguments: str) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def shares(capsys: Out) -> dict[str, str | None]:
    listed = told(capsys, "adapters", "list")["adapters"]
    return {item["name"]: item["share"] for item in listed if item["name"].startswith("tiny@")}


def test_what_is_in_it_is_listed_and_verified(home: Path, capsys: Out) -> None:
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert shares(capsys) == {"tiny@v1.1": "10%", "tiny@v1.2": "90%"}
    assert told(capsys, "adapters", "show", "tiny")["shares"] == {"v1.1": 10, "v1.2": 90}
    assert main(["adapters", "verify", "tiny@v1.1"]) == 0
    assert main(["adapters", "verify", "tiny@v1.2"]) == 0
    verdict = told(capsys, "ledger", "verify")
    assert (verdict["state"], verdict["entries"], len(verdict["keys"])) == ("intact", 5, 2)
    actions = [entry["action"] for entry in told(capsys, "ledger", "list")["entries"]]
    assert actions == ["add", "add", "promote", "rotate", "canary"]
    assert {path: path.read_bytes() for path in before} == before


def test_it_is_changed_and_added_to(home: Path, capsys: Out) -> None:
    assert main(["adapters", "rollback", "tiny"]) == 0
    assert shares(capsys) == {"tiny@v1.1": None, "tiny@v1.2": None}
    assert main(["adapters", "promote", "tiny@v1.2"]) == 0
    more = SHIPPED / "oneseek-mini-en"
    assert main(["adapters", "add", str(more), "--alias", "tiny", "--version", "v1.3"]) == 0
    assert main(["adapters", "canary", "tiny", "v1.2=50", "v1.3=50"]) == 0
    assert main(["adapters", "settle", "tiny"]) == 0
    assert main(["adapters", "promote", "tiny@v1.3"]) == 0
    assert main(["adapters", "retire", "tiny@v1.1"]) == 0
    assert main(["ledger", "rotate"]) == 0
    assert told(capsys, "adapters", "show", "tiny")["name"] == "tiny@v1.3"
    assert set(shares(capsys)) == {"tiny@v1.2", "tiny@v1.3"}
    ledger = Ledger.open(home / "ledger")
    assert ledger.verify().state == "intact"
    actions = [entry.record.action for entry in ledger.entries()][5:]
    assert actions == ["rollback", "promote", "add", "canary", "settle", "promote", "retire", "rotate"]
    assert read_format(home) == FORMAT
    assert (home / FORMAT_FILE).is_file()


def test_it_is_served_with_the_provenance_that_its_ledger_has(home: Path) -> None:
    with running_server(resolve_settings({"require_provenance": "true"}).settings) as target:
        names = {str(model["id"]) for model in target.models()}
        assert {"tiny", "tiny@v1.1", "tiny@v1.2"} <= names
        for version in ("v1.1", "v1.2"):
            body = {
                "model": f"tiny@{version}",
                "max_tokens": 3,
                "messages": [{"role": "user", "content": "Hi"}],
            }
            answer = httpx.post(f"{target.url}/v1/chat/completions", json=body, timeout=60)
            recorded = json.loads((home / "registry" / "tiny" / version / "oneseek.json").read_text("utf-8"))
            assert answer.headers["x-oneseek-adapter-digest"] == recorded["digest"]
            assert answer.json()["usage"]["completion_tokens"] == 3
    assert read_format(home) == FORMAT
    assert (home / FORMAT_FILE).is_file()


def test_a_graph_that_it_does_not_know_is_built_anew(home: Path) -> None:
    """Of another builder, and torn by a kill, under the very name that this one uses."""
    base = SHIPPED / "base"
    built = prepare(base, home / "graphs", "sha256:0").folder
    (built / MANIFEST_FILE).write_text('{"format": "of another time"}', encoding="utf-8")
    (built.parent / ".building-killed").mkdir()
    again = prepare(base, home / "graphs", "sha256:0")
    assert again.folder == built
    assert "builder_version" in json.loads((built / MANIFEST_FILE).read_text("utf-8"))


@pytest.mark.parametrize(
    "verb",
    [
        ["serve", "--port", "0"],
        ["route", "Hello"],
        ["adapters", "list"],
        ["adapters", "show", "tiny"],
        ["adapters", "verify", "tiny@v1.1"],
        ["adapters", "add", str(SHIPPED / "oneseek-mini-en"), "--alias", "tiny", "--version", "v1.3"],
        ["adapters", "promote", "tiny@v1.1"],
        ["adapters", "rollback", "tiny"],
        ["ledger", "verify"],
        ["ledger", "list"],
        ["ledger", "repair"],
        ["ledger", "rotate"],
    ],
    ids=" ".join,
)
def test_a_newer_home_is_refused_by_every_verb_and_left_alone(
    home: Path, capsys: Out, verb: list[str]
) -> None:
    (home / FORMAT_FILE).write_text(f"{FORMAT + 1}\n", encoding="ascii")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert main(verb) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    for part in (str(home), f"format {FORMAT + 1}", f"format {FORMAT}", "ONESEEK_HOME"):
        assert part in captured.err
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
