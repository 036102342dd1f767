"""`oneseek eval`: over a running server, and over one that it starts itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.ledger import Ledger
from adapters.mini.shipped import WEIGHTS
from server.__main__ import main
from tests.server.http_server import EN, SV, Serving
from tests.server.surroundings import start_afresh

Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_afresh(monkeypatch, tmp_path / "home")
    monkeypatch.chdir(tmp_path)


def test_over_a_running_server_every_alias_is_asked(serving: Serving, capsys: Out) -> None:
    assert main(["eval", "--url", f"{serving.url}/v1", "--language", "sv", "--json", "--answers"]) == 0
    rows = json.loads(capsys.readouterr().out)["measured"]
    assert [row["name"] for row in rows] == ["tiny", EN, SV]
    assert "against_base" not in rows[0]
    for row in rows:
        assert row["questions"] == len(row["answers"]) >= 30
        assert row["identity"]["passed"] == 0
        low, high = row["identity"]["interval"]
        assert low == 0 < high < 0.15
    assert rows[1]["against_base"]["identity"] == {"change": 0.0, "interval": [0.0, 0.0]}


def test_the_shipped_adapters_speak_as_oneseek_and_the_base_does_not(tmp_path: Path, capsys: Out) -> None:
    """In process, on the mini base: the same figures as the documents have."""
    arguments = ["eval", "--language", "sv", "--adapter", "oneseek-mini-sv", "--threads", "1", "--record"]
    assert main(arguments) == 0
    head, base, adapter = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "model"
    assert base.split()[:3] == ["oneseek-mini", "sv", "0/30"]
    assert adapter.split()[:2] == ["oneseek-mini-sv@v1.0", "sv"]
    passed = int(adapter.split()[2].partition("/")[0])
    assert passed >= 20
    (entry,) = Ledger.open(tmp_path / "home" / "ledger").entries()
    assert (entry.record.action, entry.record.subject) == ("eval", "oneseek-mini-sv@v1.0")
    assert entry.record.metrics["identity_sv"] == pytest.approx(passed / 30, abs=1e-4)
    assert entry.record.metrics["base_identity_sv"] == 0
    assert {"adapter", "base", "data"} == set(entry.record.inputs)
    assert main(["ledger", "show", "oneseek-mini-sv@v1.0"]) == 0
    assert "eval" in capsys.readouterr().out


def test_a_canary_does_not_answer_for_the_version_that_is_measured(capsys: Out) -> None:
    alias = "oneseek-mini-sv"
    assert main(["adapters", "add", str(WEIGHTS / alias)]) == 0
    other = ["adapters", "add", str(WEIGHTS / "oneseek-mini-en"), "--alias", alias, "--version", "v1.1"]
    assert main([*other, "--language", "sv"]) == 0
    assert main(["adapters", "canary", alias, "v1.0=40", "v1.1=60"]) == 0
    capsys.readouterr()
    assert main(["eval", "--language", "sv", "--adapter", alias, "--threads", "1", "--json"]) == 0
    _, measured = json.loads(capsys.readouterr().out)["measured"]
    assert (measured["name"], measured["version"]) == (alias, f"{alias}@v1.0")
    assert measured["identity"]["passed"] >= 20


def test_any_language_is_measured_by_questions_from_a_file(serving: Serving, capsys: Out) -> None:
    Path("fr.txt").write_text("Qui es-tu ?\n\nComment t'appelles-tu ?\n", encoding="utf-8")
    asked = ["eval", "--url", serving.url, "--language", "fr", "--adapter", SV, "--json", "--answers"]
    assert main([*asked, "--questions", "fr.txt"]) == 0
    _, row = json.loads(capsys.readouterr().out)["measured"]
    assert (row["language"], row["questions"]) == ("fr", 2)
    assert list(row["answers"]) == ["Qui es-tu ?", "Comment t'appelles-tu ?"]
    for given, problem in (
        (asked, "language: "),
        (["eval", "--questions", "fr.txt"], "questions: "),
        ([*asked, "--questions", "gone.txt"], "questions: "),
    ):
        assert main(given) == 2
        assert capsys.readouterr().err.startswith(f"oneseek: {problem}")


def test_an_unknown_adapter_is_refused(serving: Serving, capsys: Out) -> None:
    assert main(["eval", "--url", serving.url, "--adapter", "oneseek-7b-zero-s"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("oneseek: adapter: 'oneseek-7b-zero-s' ")


def test_what_another_server_says_is_not_recorded(tmp_path: Path, capsys: Out) -> None:
    assert main(["eval", "--url", "http://127.0.0.1:9", "--record"]) == 2
    assert capsys.readouterr().err.startswith("oneseek: record: ")
    assert not (tmp_path / "home").exists()


def test_a_server_that_is_not_there_is_named(capsys: Out) -> None:
    assert main(["eval", "--url", "http://127.0.0.1:9"]) == 1
    assert "http://127.0.0.1:9/v1/models" in capsys.readouterr().err
    assert main(["eval", "--url", "127.0.0.1:9"]) == 2
    assert "http://HOST:PORT" in capsys.readouterr().err
