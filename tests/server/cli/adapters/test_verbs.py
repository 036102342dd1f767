"""The verbs over the registry, as a user types them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from server.__main__ import main
from tests.server.cli.adapters.verbs import Out, active, refused, run, told


def test_from_added_to_retired(home: Path, voices: dict[str, Path], capsys: Out) -> None:
    named = ("--alias", "zero", "--language", "sv")
    first = run(capsys, "add", str(voices["en"]), *named)
    assert "zero@v1.0" in first
    again = run(capsys, "add", str(voices["en"]), *named)
    assert again.startswith("zero@v1.0 ")
    assert [item["name"] for item in told(capsys, "list")["adapters"]] == active(capsys) == ["zero@v1.0"]
    later = run(capsys, "add", str(voices["sv"]), *named)
    assert later.endswith("oneseek adapters promote zero@v1.1")
    assert "zero@v1.0" in later
    assert active(capsys) == ["zero@v1.0"]
    promoted = run(capsys, "promote", "zero@v1.1")
    assert re.search(r"\bzero@v1\.1\b.*\bv1\.0\b", promoted)
    assert re.findall(r"v[\d.]*\d", run(capsys, "promote", "zero@v1.1")) == ["v1.1"]
    assert active(capsys) == ["zero@v1.1"]
    assert re.findall(r"\d+", run(capsys, "list")) == ["2", "1"]
    assert re.findall(r"zero@v[\d.]*\d", run(capsys, "rollback", "zero")) == ["zero@v1.1", "zero@v1.0"]
    assert active(capsys) == ["zero@v1.0"]
    retired = run(capsys, "retire", "zero@v1.1")
    assert retired.endswith("oneseek adapters promote zero@v1.1")
    assert re.findall(r"\d+", run(capsys, "list")) == ["1", "1"]
    deleted = run(capsys, "retire", "zero@v1.1", "--delete")
    assert re.findall(r"zero@v[\d.]*\d", deleted) == ["zero@v1.1"]
    assert [path.name for path in sorted((home / "registry" / "zero").iterdir())] == ["v1.0"]


def test_every_verb_answers_json(filled: Path, capsys: Out, tmp_path: Path) -> None:
    shown = told(capsys, "show", "zero@v1.1")
    assert (shown["active"], shown["retired"], shown["manifest"]["version"]) == (True, False, "v1.1")
    assert shown["card"].startswith("---\nbase_model: ")
    assert told(capsys, "promote", "zero@v1.2")["before"] == "zero@v1.1"
    assert told(capsys, "rollback", "zero")["after"] == "zero@v1.1"
    checked = told(capsys, "verify")
    assert [(item["name"], item["whole"], item["fits_the_base"]) for item in checked["versions"]] == [
        ("zero@v1.1", True, True),
        ("zero@v1.2", True, True),
    ]
    compared = told(capsys, "diff", "zero@v1.1", "zero@v1.2")
    assert compared["config"]["r"] == [4, 8]
    assert len(compared["modules"]) == 3 * 7
    assert abs(compared["all"]["cosine"]) < 0.2
    assert told(capsys, "export", "zero", "--output", str(tmp_path / "out"))["name"] == "zero@v1.1"
    retired = told(capsys, "retire", "zero@v1.2")
    assert retired.pop("summary").endswith("oneseek adapters promote zero@v1.2")
    assert retired == {"name": "zero@v1.2", "deleted": False}


def test_show_and_diff_for_people(filled: Path, capsys: Out) -> None:
    assert main(["adapters", "show", "zero"]) == 0
    out = capsys.readouterr().out
    assert "base_digest" in out
    assert "# zero v1.1" in out
    assert "targets         q_proj, v_proj" in out
    assert not {"---", "base_model: mistral-7b-instruct"} & set(out.splitlines()), "what the fields say"
    assert "oneseek ledger show zero@v1.1" in out
    assert re.search(r"^zero@v1\.1 .*\bzero: v1\.1, v1\.2\b", out.splitlines()[-1])
    same = run(capsys, "diff", "zero@v1.1", "zero")
    assert re.search(r"^zero@v1\.1 .*\bzero\b", same)
    assert "v1.2" not in same


def test_requests_are_divided_and_told_so(filled: Path, capsys: Out) -> None:
    divided = run(capsys, "canary", "sv", "v1.1=90", "v1.2=10%")
    assert re.search(r"\bzero\b.*: v1\.1 90%, v1\.2 10%", divided)
    shares = {item["name"]: item["share"] for item in told(capsys, "list")["adapters"]}
    assert shares == {"zero@v1.1": "90%", "zero@v1.2": "10%"}
    assert main(["adapters", "list"]) == 0
    assert "10%" in capsys.readouterr().out
    assert told(capsys, "show", "zero")["shares"] == {"v1.1": 90, "v1.2": 10}
    assert main(["adapters", "show", "zero"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.search(r": v1\.1, v1\.2\b.*: v1\.1 90%, v1\.2 10%", last)
    assert "settle zero" in refused(capsys, "retire", "zero@v1.2")
    settled = told(capsys, "settle", "zero", "--reason", "enough")
    assert (settled["shares"], settled["before"]["shares"]) == ({}, {"v1.1": 90, "v1.2": 10})
    unchanged = run(capsys, "settle", "zero")
    assert re.search(r"\bzero\b.*\bv1\.1\b", unchanged)
    assert ": v1.2 shadows 5%" in run(capsys, "shadow", "sv@v1.2", "--share", "5")
    shares = {item["name"]: item["share"] for item in told(capsys, "list")["adapters"]}
    assert shares == {"zero@v1.1": None, "zero@v1.2": "shadows 5%"}
    changed = run(capsys, "settle", "sv")
    assert re.search(r"\bzero\b.*\bv1\.1\b", changed)
    assert changed != unchanged
    assert not any(item["share"] for item in told(capsys, "list")["adapters"])


def test_shares_that_are_none_are_refused(filled: Path, capsys: Out) -> None:
    for share in ("v1.2", "v1.2=1_0", "v1.2=nan", "v1.2=inf", "v1.2= 10", "v1.2=١٠"):
        assert f"shares: {share!r} " in refused(capsys, "canary", "zero", share, code=2)
    twice = refused(capsys, "canary", "zero", "v1.2=1", "v1.2=2", code=2)
    assert re.search(r"\bshares: .*\bv1\.2\b", twice)
    assert "shares: " in refused(capsys, "canary", "zero", code=2)
    whole = refused(capsys, "canary", "zero", "v1.1=90", "v1.2=20")
    assert re.search(r"\b110\b.*\b100\b", whole)
    assert "'zero@v9'" in refused(capsys, "canary", "zero", "v1.1=90", "v9=10")


def test_verify_fails_by_name(filled: Path, capsys: Out) -> None:
    weights = filled / "registry" / "zero" / "v1.2" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert main(["adapters", "verify"]) == 1
    captured = capsys.readouterr()
    whole, count = captured.out.splitlines()
    assert whole == "whole   zero@v1.1"
    assert re.findall(r"\d+", count) == ["1", "2"]
    assert captured.err.startswith("broken  zero@v1.2: ")
    assert main(["adapters", "verify", "zero@v1.1"]) == 0


def test_mistakes_are_one_line(filled: Path, voices: dict[str, Path], capsys: Out) -> None:
    assert "'one@v1'" in refused(capsys, "promote", "one@v1")
    assert "promote zero@VERSION" in refused(capsys, "promote", "zero")
    assert re.search(r"\bzero\b.*\bv1\.1\b", refused(capsys, "rollback", "zero"))
    assert re.search(r"\bzero@v1\.1\b.*\bv1\.2\b", refused(capsys, "retire", "zero@v1.1"))
    assert "--version v1.3" in refused(
        capsys, "add", str(voices["sv"]), "--alias", "zero", "--version", "v1.1"
    )
    assert "adapter_config.json" in refused(capsys, "add", "nowhere", "--alias", "zero")
    for flag, value in (("--alias", "a/b"), ("--version", "latest"), ("--language", "swedish")):
        assert main(["adapters", "add", str(voices["sv"]), flag, value]) == 2
        assert capsys.readouterr().err.startswith(f"oneseek: {flag}: ")


def test_an_adapter_for_another_base_is_refused(
    filled: Path, voices: dict[str, Path], capsys: Out, tmp_path: Path
) -> None:
    path = tmp_path / "other-v1"
    shutil.copytree(voices["en"], path)
    (path / "oneseek.json").write_text(json.dumps({"base_digest": "sha256:" + "1" * 64}), encoding="utf-8")
    said = refused(capsys, "add", str(path))
    assert "base_digest = 'sha256:1111" in said
    assert re.search(r"\bmistral-7b-instruct\b.*\bsha256:", said)


def test_a_promoted_version_that_is_gone_is_said_and_no_other_takes_its_place(
    filled: Path, capsys: Out
) -> None:
    run(capsys, "promote", "zero@v1.2")
    shutil.rmtree(filled / "registry" / "zero" / "v1.2")
    shown = told(capsys, "list")
    assert [item["name"] for item in shown["adapters"] if item["active"]] == ["zero@v1.2"]
    problems = {item["name"]: item["problem"] for item in shown["adapters"]}
    assert problems["zero@v1.1"] is None
    assert re.search(r"^v1\.2: .*\bretire --delete\b", problems["zero@v1.2"])
    assert main(["adapters", "list"]) == 0
    assert "damaged, not served" in capsys.readouterr().out
    run(capsys, "rollback", "zero")
    assert [item["name"] for item in told(capsys, "list")["adapters"]] == ["zero@v1.1"]


def test_verbs_take_what_is_served_from_a_folder(home: Path, voices: dict[str, Path], capsys: Out) -> None:
    folder = home.parent / "root" / "lora_adapters" / "zero-v1.1-SV"
    shutil.copytree(voices["sv"], folder)
    assert told(capsys, "show", "sv")["path"] == str(folder)
    added = told(capsys, "add", str(voices["en"]), "--alias", "zero-sv")
    assert (added["name"], added["active"], added["active_version"]) == (
        "zero-sv@v1.2",
        False,
        "zero-sv@v1.1",
    )
    assert added["promote"] == "oneseek adapters promote zero-sv@v1.2"
    assert active(capsys) == ["zero-sv@v1.1"]
    assert str(Path("lora_adapters") / folder.name) in refused(
        capsys, "add", str(voices["en"]), "--alias", "zero-sv", "--version", "v1.1"
    )
    assert "shares" in told(capsys, "canary", "sv", "v1.1=90", "v1.2=10")
    assert re.search(r"\bzero-sv@v1\.2\b.*\bv1\.1\b", run(capsys, "promote", "zero-sv@v1.2"))
    assert active(capsys) == ["zero-sv@v1.2"]
    assert "lora_adapters" in refused(capsys, "retire", "zero-sv@v1.1", "--delete")
    back = run(capsys, "rollback", "zero-sv")
    assert re.findall(r"zero-sv@v[\d.]*\d", back) == ["zero-sv@v1.2", "zero-sv@v1.1"]
    assert active(capsys) == ["zero-sv@v1.1"]
    run(capsys, "promote", "zero-sv@v1.2")
    assert active(capsys) == ["zero-sv@v1.2"]
    run(capsys, "retire", "zero-sv@v1.1")
    listed = told(capsys, "list")
    assert [item["name"] for item in listed["adapters"]] == ["zero-sv@v1.2"]
    assert any("oneseek adapters promote zero-sv@v1.1" in note for note in listed["not_served"])
    assert folder.is_dir()


def test_an_alias_that_is_a_language_code_is_meant_by_its_name(
    filled: Path, voices: dict[str, Path], capsys: Out
) -> None:
    for version, voice in (("v1", "en"), ("v2", "sv")):
        assert main(["adapters", "add", str(voices[voice]), "--alias", "sv", "--version", version]) == 0
    capsys.readouterr()
    configured = ("--routing-languages", "sv=zero")
    assert told(capsys, "canary", "sv", "v1=90", "v2=10", *configured)["alias"] == "sv"
    listed = told(capsys, "list", *configured)
    assert {item["name"]: item["language"] for item in listed["adapters"]}["sv@v1"] is None


def test_a_language_that_several_speak_names_them(
    filled: Path, voices: dict[str, Path], capsys: Out, tmp_path: Path
) -> None:
    run(capsys, "add", str(voices["en"]), "--alias", "one", "--language", "sv")
    assert re.search(r"^oneseek: .*'sv'.*\bone or zero\b", refused(capsys, "show", "sv"))
    assert main(["merge", "--adapter", "sv", "--output", str(tmp_path / "merged")]) == 1
    assert re.search(r"'sv'.*\bone or zero\b", capsys.readouterr().err)


def test_a_home_that_cannot_be_one_is_told_with_its_path(
    home: Path, voices: dict[str, Path], capsys: Out
) -> None:
    home.write_text("a file")
    found = refused(capsys, "add", str(voices["en"]), "--alias", "zero")
    assert found.startswith(f"oneseek: {home}")
    assert home.read_text() == "a file"
