"""The verbs over the registry, as a user types them, and what they leave for transformers and PEFT."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adapters.lora.digest import adapter_digest
from server.__main__ import main
from server.cli.adapters.changes import UNVERIFIED

Out = pytest.CaptureFixture[str]


@pytest.fixture
def voices(tiny_adapters: dict[str, Path]) -> dict[str, Path]:
    return tiny_adapters


@pytest.fixture
def home(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with a base and an empty registry; the working directory is in it."""
    shutil.copytree(tiny_base, tmp_path / "root" / "models" / "mistral-7b-instruct")
    for name in os.environ:
        if name.startswith("ONESEEK_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ONESEEK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "home"


def run(capsys: Out, *arguments: str) -> str:
    """The last line of what a verb prints."""
    assert main(["adapters", *arguments]) == 0
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if "base digest" not in line]
    assert said == []
    return captured.out.splitlines()[-1]


def told(capsys: Out, *arguments: str) -> Any:
    assert main(["adapters", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: Out, *arguments: str, code: int = 1) -> str:
    assert main(["adapters", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.fixture
def filled(home: Path, voices: dict[str, Path], capsys: Out) -> Path:
    """With v1.1, active, and v1.2 of `zero`."""
    for version, voice in (("v1.1", "en"), ("v1.2", "sv")):
        run(capsys, "add", str(voices[voice]), "--alias", "zero", "--version", version, "--language", "sv")
    return home


def active(capsys: Out) -> list[str]:
    return [item["name"] for item in told(capsys, "list")["adapters"] if item["active"]]


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


def test_an_import_answers_as_the_adapter_that_peft_saved(
    home: Path, voices: dict[str, Path], tiny_base: Path, capsys: Out
) -> None:
    (home.parent / "root" / "weights").mkdir()
    tensors = load_file(voices["sv"] / "adapter_model.safetensors")
    wrapped = {
        "model_state_dict": {name.replace(".weight", ".default.weight"): t for name, t in tensors.items()}
    }
    torch.save(wrapped, "weights/oneseek-7b-zero-v1.1-SV.pth")
    said = {"lora_config": {"r": 8, "lora_alpha": 16}, "metrics": {"loss": 4.48, "accuracy": 0.85}}
    Path("weights/oneseek-7b-zero-v1.1-SV.json").write_text(json.dumps(said), encoding="utf-8")
    shown = told(capsys, "import", "weights/oneseek-7b-zero-v1.1-SV.pth")
    assert (shown["name"], shown["language"], shown["warnings"]) == (
        "oneseek-7b-zero-sv@v1.1",
        "sv",
        [UNVERIFIED],
    )
    logits = [answer(tiny_base, folder) for folder in (voices["sv"], Path(shown["path"]))]
    assert torch.equal(*logits)


def test_a_version_without_a_language_says_that_nothing_is_routed_to_it(
    home: Path, voices: dict[str, Path], capsys: Out
) -> None:
    folder = shutil.copytree(voices["sv"], home.parent / "root" / "plain")
    shown = told(capsys, "add", str(folder), "--alias", "zero")
    assert any("--routing-languages CODE=zero" in warning for warning in shown["warnings"])
    tensors = load_file(folder / "adapter_model.safetensors")
    torch.save(tensors, folder / "adapter_model.bin")
    assert main(["adapters", "import", str(folder / "adapter_model.bin"), "--alias", "one"]) == 0
    captured = capsys.readouterr()
    assert "one@v1.0" in captured.err
    shown = told(capsys, "import", str(folder / "adapter_model.bin"), "--alias", "two", "--language", "sv")
    assert (shown["language"], shown["warnings"]) == ("sv", [UNVERIFIED])


def test_an_import_asks_a_person_for_the_language(
    home: Path, voices: dict[str, Path], capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    (home.parent / "root" / "weights").mkdir()
    file = Path("weights/plain-v1.pth")
    torch.save(load_file(voices["sv"] / "adapter_model.safetensors"), file)
    for answer, status in (("sv\n", 0), ("swedish please\n", 2)):
        asked = Terminal()
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        monkeypatch.setattr("sys.stderr", asked)
        assert main(["adapters", "import", str(file), "--alpha", "16"]) == status
        assert "plain-v1.pth" in asked.getvalue()
    capsys.readouterr()
    listed = told(capsys, "list")["adapters"]
    assert [(item["name"], item["language"]) for item in listed] == [("plain@v1", "sv")]


def answer(base: Path, adapter: Path) -> torch.Tensor:
    """Logits of some tokens, by transformers and PEFT."""
    from peft import PeftModel
    from transformers import MistralForCausalLM

    model = PeftModel.from_pretrained(MistralForCausalLM.from_pretrained(base), str(adapter)).eval()
    with torch.no_grad():
        return model(torch.arange(1, 9)[None]).logits


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_an_export_is_what_peft_loads(
    name: str, filled: Path, voices: dict[str, Path], tiny_base: Path, tmp_path: Path, capsys: Out
) -> None:
    path = tmp_path / name
    said = run(capsys, "export", "zero@v1.2", "--output", str(path))
    assert re.search(rf"\bzero@v1\.2\b.*{re.escape(str(path))}", said)
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "unzipped")
        path = tmp_path / "unzipped" / "out"
    assert adapter_digest(path) == adapter_digest(voices["sv"])
    assert torch.equal(answer(tiny_base, voices["sv"]), answer(tiny_base, path))
    capsys.readouterr()
    assert str(tmp_path / name) in refused(capsys, "export", "zero", "--output", str(tmp_path / name))


def test_an_export_makes_the_same_bytes(filled: Path, tmp_path: Path, capsys: Out) -> None:
    paths = [tmp_path / place / "x.zip" for place in "ab"]
    for path in paths:
        run(capsys, "export", "zero", "--output", str(path))
    assert paths[0].read_bytes() == paths[1].read_bytes()


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


def test_a_pickle_is_sent_to_import_and_a_folder_is_taken_by_either(
    home: Path, voices: dict[str, Path], capsys: Out, tmp_path: Path
) -> None:
    pickle = tmp_path / "old" / "adapter.pth"
    pickle.parent.mkdir()
    pickle.write_bytes(b"no pickle at all")
    for given in (pickle.parent, pickle):
        assert refused(capsys, "add", str(given)).endswith(f" oneseek adapters import {pickle}\n")
    given = (str(voices["en"]), "--alias", "zero", "--version", "v3", "--language", "sv")
    shown = told(capsys, "import", *given)["adapters"]
    assert [(one["status"], one["name"], one["language"]) for one in shown] == [("imported", "zero@v3", "sv")]
    assert told(capsys, "add", *given)["new"] is False


def test_a_folder_with_something_refused_is_imported_but_for_that(
    home: Path, voices: dict[str, Path], capsys: Out, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    for name, voice in (("zero-v1.1", "en"), ("zero-v1.1-SV", "sv")):
        shutil.copytree(voices[voice], place / name)
    (place / "bad-v1.pth").write_bytes(b"no pickle at all")
    for flags, status in ((["--dry-run"], "would import"), ([], "imported"), ([], "there already")):
        assert main(["adapters", "import", str(place), "--language", "en", "--json", *flags]) == 1
        shown = json.loads(capsys.readouterr().out)
        assert [(one["status"], one.get("name")) for one in shown["adapters"]] == [
            ("refused", None),
            (status, "zero@v1.1"),
            (status, "zero-sv@v1.1"),
        ]
        assert [one.get("language") for one in shown["adapters"]] == [None, "en", "sv"]
        assert "bad-v1.pth" in shown["adapters"][0]["problem"]
        assert (home / "registry").exists() == (not flags)
    assert main(["adapters", "import", str(place)]) == 1
    captured = capsys.readouterr()
    assert re.findall(r"\d+", captured.out.splitlines()[-1]) == ["0", "2", "1"]
    assert captured.err.splitlines()[0].startswith("refused ")
    for flag in ("--alias", "--version", "--alpha"):
        value = {"--alias": "zero", "--version": "v1", "--alpha": "8"}[flag]
        assert main(["adapters", "import", str(place), flag, value]) == 2
        assert capsys.readouterr().err.startswith(f"oneseek: {flag}: ")
    several = [str(place / "zero-v1.1"), str(place / "zero-v1.1-SV")]
    assert main(["adapters", "import", *several]) == 0
    assert re.findall(r"\d+", capsys.readouterr().out.splitlines()[-1]) == ["0", "2", "0"]


def test_a_home_that_cannot_be_one_is_told_with_its_path(
    home: Path, voices: dict[str, Path], capsys: Out
) -> None:
    home.write_text("a file")
    found = refused(capsys, "add", str(voices["en"]), "--alias", "zero")
    assert found.startswith(f"oneseek: {home}")
    assert home.read_text() == "a file"
