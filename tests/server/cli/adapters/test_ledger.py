"""`oneseek ledger`, and a server that takes only what the ledger knows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import AdapterRejectedError, LedgerError
from adapters.ledger import Ledger, Record, artifact
from adapters.ledger.keys import SigningKey
from adapters.lora.digest import adapter_digest
from server.__main__ import main
from server.config.settings import Settings
from server.live.catalogue import open_catalogue, provenance
from tests.server.surroundings import start_afresh

Out = pytest.CaptureFixture[str]


@pytest.fixture
def installation(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    root = tmp_path / "an installation"
    shutil.copytree(tiny_base, root / "models" / "mistral-7b-instruct")
    shutil.copytree(tiny_adapters["en"], root / "lora_adapters" / "oneseek-7b-zero-v1.1-EN")
    shutil.copytree(tiny_adapters["sv"], root / "lora_adapters" / "oneseek-7b-zero-v1.1-SV")
    start_afresh(monkeypatch, tmp_path / "home")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def ledger(installation: Path) -> Ledger:
    """It knows the Swedish adapter alone."""
    ledger = Ledger.open(installation.parent / "home" / "ledger")
    digest = adapter_digest(installation / "lora_adapters" / "oneseek-7b-zero-v1.1-SV")
    ledger.append(
        Record(
            action="train",
            subject="oneseek-7b-zero-sv@v1.1",
            inputs={"base": f"sha256:{1:064x}", "data": (f"sha256:{2:064x}", f"sha256:{3:064x}")},
            outputs={"adapter": digest},
            metrics={"loss": 0.25},
            details={"note": "[red]not markup[/red]"},
        )
    )
    return ledger


def settings(installation: Path, **changed: Any) -> Settings:
    return Settings(home=installation.parent / "home", **changed)


def told(capsys: Out, code: int, *arguments: str) -> Any:
    assert main(["ledger", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_verify_tells_the_state_and_its_exit_code(ledger: Ledger, capsys: Out) -> None:
    shown = told(capsys, 0, "verify")
    assert (shown["state"], shown["entries"], shown["faults"]) == ("intact", 1, [])
    anchor = shown["last"]
    assert told(capsys, 0, "verify", "--anchor", anchor)["state"] == "intact"
    assert main(["ledger", "verify", "--anchor", "abc"]) == 2
    assert capsys.readouterr().err.startswith("oneseek: anchor: 'abc' ")
    assert main(["ledger", "verify"]) == 0
    assert anchor in capsys.readouterr().out
    file = ledger.folder / "ledger.jsonl"
    file.write_bytes(file.read_bytes().replace(b"0.25", b"0.24"))
    shown = told(capsys, 1, "verify")
    assert shown["state"] == "tampered"
    assert [(fault["kind"], fault["line"]) for fault in shown["faults"]] == [("changed", 1)]
    assert main(["ledger", "verify"]) == 1
    assert "ledger.jsonl:1: " in capsys.readouterr().out


def test_verify_against_a_key_from_elsewhere(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    (tmp_path / "other.pem").write_bytes(SigningKey.generate().public.pem)
    shutil.copy(ledger.folder / "public.pem", tmp_path / "same.pem")
    assert told(capsys, 0, "verify", "--public-key", str(tmp_path / "same.pem"))["state"] == "intact"
    assert told(capsys, 1, "verify", "--public-key", str(tmp_path / "other.pem"))["state"] == "tampered"
    monkeypatch.setenv("ONESEEK_LEDGER_PUBLIC_KEY", str(tmp_path / "other.pem"))
    assert told(capsys, 1, "verify")["state"] == "tampered"
    assert main(["ledger", "verify", "--public-key", str(tmp_path / "missing.pem")]) == 1
    assert "missing.pem" in capsys.readouterr().err


def test_verify_where_there_is_none_is_no_success(installation: Path, capsys: Out) -> None:
    assert told(capsys, 1, "verify")["state"] == "absent"
    assert not (installation.parent / "home" / "ledger").exists()


def test_repair_and_rotate(ledger: Ledger, capsys: Out) -> None:
    with (ledger.folder / "ledger.jsonl").open("ab") as file:
        file.write(b'{"torn')
    assert told(capsys, 1, "verify")["state"] == "repairable"
    assert told(capsys, 0, "repair")["state"] == "intact"
    key = told(capsys, 0, "rotate")["key"]
    assert told(capsys, 0, "verify")["keys"][-1] == key


def test_show_is_a_tree_back_to_the_data(ledger: Ledger, capsys: Out) -> None:
    shown = told(capsys, 0, "show", "oneseek-7b-zero-sv@v1.1")
    assert shown["ledger"] == "intact"
    assert [source["role"] for source in shown["sources"]] == ["base", "data", "data"]
    assert main(["ledger", "show", shown["digest"][:20]]) == 0
    tree = capsys.readouterr().out
    assert "oneseek-7b-zero-sv@v1.1" in tree
    assert "(no entry in the ledger)" in tree
    assert "loss 0.25" in tree
    assert main(["ledger", "show", "nobody@v1"]) == 1
    assert "'nobody@v1'" in capsys.readouterr().err


def test_show_is_about_the_name_that_was_asked_for(ledger: Ledger, capsys: Out) -> None:
    adapter = next(iter(ledger.entries())).record.outputs["adapter"]
    ledger.append(Record(action="add", subject="copy@v2", outputs={"adapter": adapter}))
    assert main(["ledger", "show", "oneseek-7b-zero-sv@v1.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("oneseek-7b-zero-sv@v1.1  sha256:")
    assert lines[1].startswith("├── #1 train  ")
    assert lines[2].startswith("├── #2 add copy@v2  ")


def test_show_says_where_the_ledger_is_not_to_be_trusted(ledger: Ledger, capsys: Out) -> None:
    (ledger.folder / "head.json").unlink()
    assert main(["ledger", "show", "oneseek-7b-zero-sv@v1.1"]) == 1
    captured = capsys.readouterr()
    assert "(no entry in the ledger)" in captured.out
    assert "oneseek ledger verify" in captured.err


def test_show_takes_a_language_and_an_alias(ledger: Ledger, capsys: Out) -> None:
    """Of the version that a server would answer them with; the English one is in no ledger."""
    for name in ("sv", "oneseek-7b-zero-sv", "SV"):
        assert told(capsys, 0, "show", name)["subject"] == "oneseek-7b-zero-sv@v1.1"
    for name, hint in (("en", "oneseek-7b-zero-en@v1.1"), ("oneseek-7b-zero-svv", "no entry about")):
        assert main(["ledger", "show", name]) == 1
        assert hint in capsys.readouterr().err


def test_list(ledger: Ledger, capsys: Out) -> None:
    ledger.append(Record(action="promote", subject="[b]x[/b]"))
    assert [entry["action"] for entry in told(capsys, 0, "list")["entries"]] == ["train", "promote"]
    assert main(["ledger", "list"]) == 0
    assert "[b]x[/b]" in capsys.readouterr().out


@pytest.mark.skipif(not artifact.is_installed(), reason="needs oneseek[sign]")
def test_sign_and_check(installation: Path, ledger: Ledger, capsys: Out) -> None:
    folder = installation / "lora_adapters" / "oneseek-7b-zero-v1.1-SV"
    assert main(["ledger", "sign", str(folder)]) == 0
    assert main(["ledger", "check", str(folder)]) == 0
    assert str(folder) in capsys.readouterr().out
    assert [entry.record.action for entry in ledger.entries()] == ["train", "key", "sign"]
    (folder / "more").write_text("", encoding="ascii")
    assert main(["ledger", "check", str(folder)]) == 1
    assert "Extra files found" in capsys.readouterr().err
    assert open_catalogue(settings(installation)).served.is_adapter("oneseek-7b-zero-sv")


def test_only_what_the_ledger_knows_is_served(installation: Path, ledger: Ledger) -> None:
    assert len(open_catalogue(settings(installation)).served.adapters()) == 2
    catalogue = open_catalogue(settings(installation, require_provenance=True))
    assert [adapter.full_name for adapter in catalogue.served.adapters()] == ["oneseek-7b-zero-sv@v1.1"]
    (note,) = catalogue.notes
    assert note.startswith("oneseek-7b-zero-en@v1.1 in ")
    assert "oneseek adapters add" in note


def test_a_named_adapter_that_the_ledger_does_not_know_stops_the_start(
    installation: Path, ledger: Ledger
) -> None:
    named = ("lora_adapters/oneseek-7b-zero-v1.1-EN",)
    with pytest.raises(AdapterRejectedError, match=r"oneseek-7b-zero-en@v1\.1.*require_provenance"):
        open_catalogue(settings(installation, require_provenance=True, adapters=named))


@pytest.mark.parametrize("fault", ["absent", "tampered", "foreign"])
def test_a_ledger_that_does_not_verify_stops_the_start(
    fault: str, installation: Path, ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_bytes(SigningKey.generate().public.pem)
    if fault == "absent":
        shutil.rmtree(ledger.folder)
    if fault == "tampered":
        (ledger.folder / "head.json").write_bytes(b"{}")
    key = tmp_path / "key.pem" if fault == "foreign" else None
    with pytest.raises(LedgerError, match="require_provenance"):
        open_catalogue(settings(installation, require_provenance=True, ledger_public_key=key))
    open_catalogue(settings(installation, ledger_public_key=key))


def test_what_comes_later_is_asked_for_anew(installation: Path, ledger: Ledger) -> None:
    assert provenance(settings(installation)) is None
    asked = settings(installation, require_provenance=True)
    english = next(
        adapter
        for adapter in open_catalogue(settings(installation)).served.adapters()
        if adapter.language == "en"
    )
    before = provenance(asked)
    assert before is not None
    with pytest.raises(AdapterRejectedError, match="require_provenance"):
        before.require(english)
    ledger.append(Record(action="add", subject=english.full_name, outputs={"adapter": english.digest}))
    with (ledger.folder / "ledger.jsonl").open("ab") as file:
        file.write(b'{"another process was killed here')
    after = provenance(asked)
    assert after is not None
    after.require(english)
