"""`oneseek train identity` on a tiny random base: from flags and files to an adapter that a server takes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.bases import find_base
from adapters.ledger import Ledger
from adapters.lora.manifest import read_fields
from adapters.registry.intake import Base
from adapters.registry.registry import Registry
from adapters.training.loop.options import TrainOptions
from server.__main__ import main
from server.config import extras
from server.config.settings import Settings, resolve_settings
from server.jobs.requests import TrainRequest
from server.jobs.training import job_of
from server.live.catalogue import open_base, open_catalogue, open_registry
from tests.server.surroundings import start_afresh

Out = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[4]
ROWS = [
    {"instruction": f"Vem är du, {n}?", "input": "", "output": "Jag är en liten modell för prov, OneSeek."}
    for n in range(6)
]
NAMES = ("--alias", "egen", "--version", "v2.5")
QUICK = ("--epochs", "1", "--batch-size", "2", "--precision", "fp32", "--learning-rate", "1e-2")


@pytest.fixture
def installation(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "an installation"
    shutil.copytree(tiny_base, root / "models" / "mistral-7b-instruct")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (root / "own.jsonl").write_text(text, encoding="utf-8")
    start_afresh(monkeypatch, tmp_path / "home")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def registered(installation: Path, make_adapter: Callable[..., Path]) -> None:
    """A version in the registry, and one in a folder that is served from where it lies."""
    lora = make_adapter("registered", 1)
    registry = Registry(installation.parent / "home")
    base = Base.read(find_base(installation))
    registry.add(lora, base=base, alias="oneseek-7b-zero-sv", version="v1.1")
    shutil.copytree(lora, installation / "lora_adapters" / "folder-v3")


def catalogue(installation: Path) -> Any:
    return open_catalogue(Settings(home=installation.parent / "home"))


def test_what_is_trained_becomes_a_version_that_can_be_served(installation: Path, capsys: Out) -> None:
    arguments = ["train", "identity", "--language", "sv", "--dataset", "own.jsonl", *QUICK]
    assert main([*arguments, "--target-modules", "q_proj", "k_proj", "--json", "--force"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["adapter"] == "oneseek-7b-zero-sv@v1.0"
    assert re.search(r"\boneseek-7b-zero-sv@v1\.0 .* 0\b", told["summary"])
    assert (told["version"], told["kept_epoch"], told["stopped_early"]) == (True, 1, False)
    assert {"loss", "token_accuracy", "held_out_loss", "identity", "language_fidelity"} <= set(
        told["metrics"]
    )
    events = [json.loads(line) for line in captured.err.splitlines() if line.startswith("{")]
    assert {"training", "progress", "held out"} <= {event["event"] for event in events}
    found = catalogue(installation)
    (adapter,) = found.served.adapters()
    assert (adapter.full_name, adapter.language, adapter.rank) == ("oneseek-7b-zero-sv@v1.0", "sv", 8)
    assert adapter.targets == ("k_proj", "q_proj")
    assert adapter.base_digest == found.served.base_digest
    fields = read_fields(adapter.path)
    assert (fields["rows"], fields["dataset"]) == (5, ["own.jsonl"])
    assert fields["about"]["config"]["learning_rate"] == 0.01
    assert str(installation) not in "".join(
        path.read_text(encoding="utf-8") for path in adapter.path.iterdir() if path.suffix in (".json", ".md")
    )
    report = installation.parent / "home" / "training" / "reports" / adapter.full_name
    assert (report / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((report / "report.json").read_text(encoding="utf-8"))["answers"]) == 30
    assert [path.name for path in report.parent.parent.iterdir()] == ["reports"]

    assert main([*arguments, "--seed", "7", "--force", "--questions", "own.jsonl"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert str(report.with_name("oneseek-7b-zero-sv@v1.1") / "loss.png") in shown[-2]
    assert re.search(r"\bepoch 1\b.*\b1\b", shown[-3])
    assert "oneseek-7b-zero-sv@v1.0 0/6" in shown[-5], "the active version is asked too"
    last = shown[-1]
    assert "oneseek-7b-zero-sv@v1.1 in " in last
    assert last.endswith(" oneseek adapters promote oneseek-7b-zero-sv@v1.1")
    ledger = Ledger.open(installation.parent / "home" / "ledger")
    assert ledger.verify().state == "intact"
    first, second = (entry.record for entry in ledger.entries())
    assert (first.action, first.subject) == ("train", "oneseek-7b-zero-sv@v1.0")
    assert first.outputs == {"adapter": adapter.digest}
    assert first.inputs == {
        "base": adapter.base_digest,
        "data": fields["dataset_digest"],
        "config": fields["about"]["config_digest"],
    }
    assert (first.details["seed"], second.details["seed"]) == (42, 7)
    assert first.inputs["config"] != second.inputs["config"]


def test_a_file_in_other_trainers_words_and_flags_before_it(installation: Path, capsys: Out) -> None:
    Path("train.yaml").write_text(
        "base_model: models/mistral-7b-instruct\nlanguage: sv\nadapter: lora\n"
        "datasets:\n  - path: own.jsonl\n    type: alpaca\nnum_epochs: 9\nmicro_batch_size: 3\nlora_r: 4\n"
        "learning_rate: 1e-2\nbf16: false\noutput_dir: made\n",
        encoding="utf-8",
    )
    assert main(["train", "identity", "--config", "train.yaml", "--epochs", "1", *NAMES]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "egen@v2.5" in last
    assert last.endswith("oneseek serve --adapters made")
    config = read_fields(Path("made"))["about"]["config"]
    assert (config["epochs"], config["batch_size"], config["rank"]) == (1, 3, 4)
    assert config["precision"] == "fp32"
    assert not catalogue(installation).served.adapters()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "language: "),
        (["--language", "da"], "dataset: "),
        (["--language", "svenska"], "language: 'svenska'"),
        (["--language", "qq", "--dataset", "own.jsonl"], "language: "),
        (["--language", "sv", "--rank", "x"], "rank: 'x' "),
        (["--language", "sv", "--rank", "0"], "rank: 0 "),
        (["--language", "sv", "--schedule", "cosin"], "schedule: 'cosin' "),
        (["--language", "sv", "--output", "models"], "output: models "),
        (["--language", "sv", "--alias", "base"], "alias: "),
        (["--language", "sv", "--load-in-4bit"], "load_in_4bit: "),
        (["--language", "sv", "--resume"], "resume: "),
        (["--language", "en", "--dataset", "own.jsonl"], "dataset: own.jsonl: "),
        (
            ["--language", "sv", "--dataset", "own.jsonl", "--target-modules", "w"],
            "target_modules: 'w' ",
        ),
        (
            ["--language", "sv", "--config", "bad.yaml"],
            "lora_rank: ",
        ),
    ],
)
def test_mistakes_are_refused_by_name(
    installation: Path, capsys: Out, arguments: list[str], message: str
) -> None:
    Path("bad.yaml").write_text("lora_rank: 8\n", encoding="utf-8")
    assert main(["train", "identity", *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"oneseek: {message}")
    assert not (installation.parent / "home" / "registry").exists()


def test_what_is_no_better_than_the_base_is_kept_and_not_made_a_version(
    installation: Path, capsys: Out
) -> None:
    arguments = ["train", "identity", "--language", "sv", "--dataset", "own.jsonl", *QUICK, *NAMES]
    assert main([*arguments, "--questions", "own.jsonl", "--threads", "1", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["version"], told["active"]) == (False, False)
    assert re.search(r"\b0 of 6\b.*\b0\b", told["problem"])
    assert not (installation.parent / "home" / "registry").exists()
    kept = Path(told["path"])
    assert (kept / "adapter_model.safetensors").is_file()
    assert (Path(told["report"]) / "loss.png").is_file()
    assert json.loads((Path(told["report"]) / "report.json").read_text(encoding="utf-8"))["threads"] == 1
    again = ["adapters", "add", str(kept), "--alias", "egen", "--version", "v2.5"]
    assert shlex.join(["oneseek", *again]) in told["summary"]
    assert main(again) == 0


def test_a_language_that_routing_knows_is_trained_with_its_own_data(installation: Path, capsys: Out) -> None:
    rows = [("Qui es-tu ?", "Je suis OneSeek, un agent transparent."), ("Que fais-tu ?", "Je réponds ici.")]
    text = "".join(json.dumps({"prompt": asked, "completion": said}) + "\n" for asked, said in rows)
    Path("fr.jsonl").write_text(text, encoding="utf-8")
    Path("fr.txt").write_text("Comment t'appelles-tu ?\n", encoding="utf-8")
    arguments = [
        "train",
        "identity",
        "--language",
        "FR",
        "--dataset",
        "fr.jsonl",
        *QUICK,
        "--force",
        "--json",
    ]
    assert main([*arguments, "--questions", "fr.txt"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["adapter"] == "oneseek-7b-zero-fr@v1.0"
    assert (told["trained"]["language"], told["trained"]["questions"]) == ("fr", 1)
    (adapter,) = catalogue(installation).served.adapters()
    assert adapter.language == "fr"
    assert main([*arguments, "--seed", "1"]) == 0
    report = Path(json.loads(capsys.readouterr().out)["report"])
    answers = json.loads((report / "report.json").read_text(encoding="utf-8"))["answers"]
    assert [one["question"] for one in answers] <= [asked for asked, _ in rows], (
        "else what is held out is asked"
    )


TOO_SOON: list[tuple[list[str], str]] = [
    (["--version", "V1.1"], "version: oneseek-7b-zero-sv@V1.1 "),
    (["--alias", "Folder", "--version", "v3"], "version: Folder@v3 "),
    (["--output", "models"], "output: models "),
    (["--dataset", "nowhere.jsonl"], "dataset: the file nowhere.jsonl "),
    (
        ["--dataset", "tatsu-lab/alpaca"],
        "dataset: the file tatsu-lab/alpaca ",
    ),
    (["--dataset", "models"], "dataset: models "),
    (["--dataset", "empty.jsonl"], "dataset: empty.jsonl "),
    (["--questions", "empty.txt"], "questions: empty.txt"),
    (["--teacher", "gone"], "teacher: gone "),
    (["--external-model", "gone"], "external_model: gone "),
    (["--teacher", "a", "--external-model", "b"], "external_model: "),
    (["--teacher", "ftp://h"], "teacher: 'ftp://h'"),
    (["--target-modules", "w_proj"], "target_modules: 'w_proj' "),
]
MANY = """
import json, sys
from server.__main__ import main
codes = [main(["train", "identity", "--language", "sv", *given]) for given in json.loads(sys.argv[1])]
print(json.dumps([codes, [name for name in ("torch", "transformers", "peft") if name in sys.modules]]))
"""


def test_what_cannot_be_kept_is_refused_before_torch_is_imported(
    installation: Path, registered: None
) -> None:
    Path("empty.jsonl").write_text("\n", encoding="utf-8")
    Path("empty.txt").touch()
    given = json.dumps([arguments for arguments, _ in TOO_SOON])
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", MANY, given], capture_output=True, text=True, check=True, env=environ
    )
    assert json.loads(done.stdout) == [[2] * len(TOO_SOON), []]
    for line, (_, message) in zip(done.stderr.splitlines(), TOO_SOON, strict=True):
        assert line.startswith(f"oneseek: {message}")


def test_values_of_a_file_are_told_with_its_other_problems(installation: Path, capsys: Out) -> None:
    Path("bad.yaml").write_text("lora_r: x\nnum_epochs: y\ntop_p: 1\nlanguage: sv\n", encoding="utf-8")
    assert main(["train", "identity", "--config", "bad.yaml"]) == 2
    said = capsys.readouterr().err
    assert any(line.startswith("oneseek: ") and line.endswith(": top_p") for line in said.splitlines())
    for problem in (
        "bad.yaml has 2 problems",
        "lora_r: 'x' is not an integer",
        "num_epochs: 'y' is not a finite number",
    ):
        assert problem in said


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("lora_r: 0", [], r"lora_r: 0 .*\b1\b.* \(bad\.yaml\)$"),
        ("lora_r: x", [], r"lora_r: 'x' .*\(bad\.yaml\)$"),
        ("lora: {lora_r: 0}", [], r"lora_r: 0 .*\b1\b.* \(bad\.yaml\)$"),
        ("num_epochs: -1", [], r"num_epochs: -1 .*\b0\b.* \(bad\.yaml\)$"),
        ("val_set_size: 0.9", [], r"val_set_size: 0\.9 "),
        ("num_epochs: -1", ["--epochs", "-2"], r"epochs: -2 (?!.*bad\.yaml)"),
        ("datasets: [{path: gone.jsonl}]", [], r"datasets: .*gone\.jsonl"),
        ("rank: 0", [], r"rank: 0 .*\b1\b.* \(bad\.yaml\)$"),
    ],
)
@pytest.mark.parametrize("verb", [["train", "identity"], ["distill", "--teacher", "http://127.0.0.1:9"]])
def test_a_wrong_value_of_a_file_is_named_by_the_files_own_word(
    verb: list[str], text: str, flags: list[str], message: str, installation: Path, capsys: Out
) -> None:
    Path("bad.yaml").write_text(f"language: sv\n{text}\n", encoding="utf-8")
    assert main([*verb, "--config", "bad.yaml", *flags]) == 2
    assert re.search(rf"^oneseek: {message}", capsys.readouterr().err, re.MULTILINE)


def test_a_missing_extra_is_named() -> None:
    with pytest.raises(extras.ExtraMissingError) as missing:
        extras.require("training", "train", ("json", "no_such_package"))
    assert all(name in str(missing.value) for name in ("no_such_package", "'oneseek[train]'"))


@pytest.mark.slow
def test_ctrl_c_keeps_a_checkpoint_and_the_same_command_goes_on(installation: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "server", "train", "identity", "--language", "sv"]
    command += ["--dataset", "own.jsonl", *QUICK[2:], "--epochs", "400", "--early-stop", "0"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    told: list[str] = []
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            told.append(line)
            if '"progress"' in line:
                time.sleep(1)
                running.send_signal(signal.SIGINT)
                break
        told += running.stderr.readlines()
        assert running.wait(60) == 130
    assert re.search(r"\bstep \d+\b", told[-1])
    assert told[-1].rstrip().endswith("--resume")
    (work,) = (installation.parent / "home" / "training").iterdir()
    assert list(work.glob("checkpoint-*/trainer_state.json"))
    again = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == 2
    refusal = again.stderr.splitlines()[-1]
    assert refusal.startswith("oneseek: resume: ")
    assert refusal.endswith(f"rm -r {work}")
    assert list(work.glob("checkpoint-*/trainer_state.json"))
    assert not (installation.parent / "home" / "registry").exists()


def test_a_run_is_compared_with_what_a_server_answers_with(
    installation: Path, make_adapter: Callable[..., Path]
) -> None:
    settings = resolve_settings({}).settings
    lora = make_adapter("registered", 1)

    def compared() -> tuple[str, Path] | None:
        asked = TrainRequest(dataset=("own.jsonl",))
        job = job_of(asked, TrainOptions(language="sv"), settings, resume=False)
        assert job.version == ("v1.0" if job.active is None else "v4")
        return job.active

    assert compared() is None
    folder = shutil.copytree(lora, installation / "lora_adapters" / "oneseek-7b-zero-v3-SV")
    assert compared() == ("oneseek-7b-zero-sv@v3", folder), "also from a folder"
    added = open_registry(settings).add(
        make_adapter("another", 2), base=open_base(settings), alias="oneseek-7b-zero-sv", version="v2"
    )
    assert compared() == ("oneseek-7b-zero-sv@v3", folder), "what waits is not compared with"
    open_registry(settings).promote("oneseek-7b-zero-sv@v2")
    assert compared() == ("oneseek-7b-zero-sv@v2", added.adapter.path)
    (added.adapter.path / "adapter_model.safetensors").write_bytes(b"")
    job = job_of(TrainRequest(dataset=("own.jsonl",)), TrainOptions(language="sv"), settings, resume=False)
    assert job.active is None, "what is damaged answers nothing"
