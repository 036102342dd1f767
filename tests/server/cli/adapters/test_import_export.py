"""`oneseek adapters import` and `export`, and what they leave for transformers and PEFT."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapters.lora.digest import adapter_digest
from server.__main__ import main
from server.cli.adapters.changes import UNVERIFIED
from tests.server.cli.adapters.verbs import Out, refused, run, told


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
