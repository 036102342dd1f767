"""`oneseek distill` with a real OneSeek as the teacher: the mini base and its Swedish adapter, over HTTP."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.datasets.check import Check
from adapters.distillation.journal import FILE
from adapters.ledger import Ledger
from adapters.lora.manifest import read_fields
from server.__main__ import main
from server.config.settings import Settings
from server.jobs.evaluation import running_server
from tests.server.surroundings import start_afresh

Out = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[4]
MODEL = "oneseek-mini-sv"
AT_ONCE = 4


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the mini base and its adapters."""
    settings = Settings(home=tmp_path_factory.mktemp("teacher"), threads=1)
    with running_server(settings) as endpoint:
        yield f"{endpoint.url}/v1"


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    start_afresh(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(teacher: str, *more: str) -> list[str]:
    asked = ["distill", "--teacher", teacher, "--teacher-model", MODEL, "--language", "sv"]
    return [*asked, "--concurrency", str(AT_ONCE), *more]


def requests(teacher: str) -> int:
    """How many chat completions the server has been asked for."""
    with urllib.request.urlopen(f"{teacher.removesuffix('/v1')}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    counted = [line for line in lines if line.startswith("oneseek_requests_total{")]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in counted if "/v1/chat/completions" in line)


def settled(teacher: str) -> int:
    """The same, once what a killed client left in flight has been counted."""
    before, now = -1, requests(teacher)
    while before != now:
        time.sleep(0.3)
        before, now = now, requests(teacher)
    return now


def answered(folder: Path) -> int:
    """Whole answers in the journal."""
    try:
        return max(0, (folder / FILE).read_bytes().count(b"\n") - 1)
    except FileNotFoundError:
        return 0


def test_only_data(teacher: str, surroundings: Path, capsys: Out) -> None:
    given = arguments(teacher, "--examples", "40", "--paraphrases", "0", "--no-train", "--output", "out")
    assert main([*given, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["data"] == "out/data.jsonl"
    assert told["examples"] >= 40
    assert told["teacher"]["system_fingerprints"][0].startswith("fp_")
    assert not list(Check([Path(told["data"])], languages=("sv",)).problems())
    assert not (surroundings / "home" / "registry").exists()
    before = requests(teacher)
    assert main(given) == 0
    assert requests(teacher) == before
    first = capsys.readouterr().out.splitlines()[0]
    assert re.search(rf"\b{told['examples']} .*\b{told['asked']} .*\bout/", first)
    assert main([*given, "--temperature", "0.9"]) == 2
    assert "oneseek: temperature: " in capsys.readouterr().err


def test_too_few_examples_train_nothing(teacher: str, surroundings: Path, capsys: Out) -> None:
    Path("seeds.txt").write_text("Vem är du för en?\n", encoding="utf-8")
    given = arguments(teacher, "--seeds", "seeds.txt", "--examples", "30", "--attempts", "1.5")
    assert main([*given, "--paraphrases", "0"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert " 45 " in last
    assert " 30" in last
    (folder,) = (surroundings / "home" / "distilled").iterdir()
    assert folder.name.startswith("sv-")
    assert not (surroundings / "home" / "registry").exists()


@pytest.mark.slow
def test_a_students_adapter_and_its_lineage(
    teacher: str, surroundings: Path, tiny_base: Path, capsys: Out
) -> None:
    shutil.copytree(tiny_base, "models/mistral-7b-instruct")
    quick = ("--epochs", "1", "--precision", "fp32", "--learning-rate", "1e-2", "--examples", "24", "--force")
    Path("distill.yaml").write_text("paraphrases: 0\nmicro_batch_size: 4\nlora_r: 4\n", encoding="utf-8")
    given = arguments(teacher, *quick, "--config", "distill.yaml", "--output", "out", "--json")
    assert main(given) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["adapter"] == "oneseek-7b-zero-sv@v1.0"
    assert told["distilled"]["data"] == "out/data.jsonl"
    (entry,) = Ledger.open(surroundings / "home" / "ledger").entries()
    record = entry.record
    assert (record.action, record.subject) == ("distill", told["adapter"])
    assert set(record.inputs) == {"base", "config", "data", "seeds", "teacher"}
    report: dict[str, Any] = json.loads(Path("out/report.json").read_text(encoding="utf-8"))
    assert record.inputs["data"] == report["data_digest"]
    assert record.inputs["seeds"] == report["asked"]["seeds"]
    assert record.details["teacher"] == report["teacher"]
    assert record.details["teacher"]["url"] == teacher.removesuffix("/v1")
    assert record.metrics["distilled"] == report["examples"]
    for name, one in report["answers"]["dropped"].items():
        assert record.metrics[f"dropped_{name.replace(' ', '_')}"] == one["count"]
    fields = read_fields(Path(told["path"]))
    assert fields["about"]["made_by"] == "oneseek distill"
    assert fields["about"]["config"]["distilled"]["options"]["paraphrases"] == 0
    assert (fields["rank"], fields["about"]["config"]["batch_size"]) == (4, 4)
    card = (Path(told["path"]) / "README.md").read_text(encoding="utf-8")
    assert re.search(rf" {re.escape(MODEL)} .*`sv`", card)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--language", "sv"], "teacher: "),
        (["--teacher", "http://h/v1"], "language: "),
        (["--teacher", "ftp://h", "--language", "sv"], "teacher: 'ftp://h'"),
        (
            ["--teacher", "http://u:p@h", "--language", "sv"],
            "teacher: ",
        ),
        (["--teacher", "nowhere", "--language", "sv"], "teacher: nowhere "),
        (
            ["--teacher", "nowhere", "--teacher-model", "m", "--language", "sv"],
            "teacher_model: ",
        ),
        (
            ["--teacher", "http://h", "--teacher-key-env", "NO_SUCH_KEY", "--language", "sv"],
            "teacher_key_env: ",
        ),
        (["--teacher", "http://h", "--language", "sv", "--examples", "0"], "examples: 0 "),
        (["--teacher", "http://h", "--language", "sv", "--alias", "base"], "alias: "),
        (["--teacher", "http://h", "--language", "sv", "--rank", "0"], "rank: 0 "),
        (["--config", "bad.yaml"], "paraphrase: "),
        (["--config", "other.yaml"], "external_model: 'ftp://h'"),
    ],
)
def test_mistakes_are_refused_by_name(given: list[str], message: str, capsys: Out) -> None:
    Path("bad.yaml").write_text("paraphrase: 3\n", encoding="utf-8")
    Path("other.yaml").write_text("external_model: ftp://h\nlanguage: sv\n", encoding="utf-8")
    assert main(["distill", *given]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"oneseek: {message}")
    assert not Path("home", "registry").exists()
    assert not Path("home", "distilled").exists()


def test_asking_loads_no_training_stack(teacher: str) -> None:
    given = arguments(teacher, "--examples", "4", "--paraphrases", "0", "--no-train")
    code = (
        f"import sys; from server.__main__ import main; code = main({given!r})\n"
        "print(*(name for name in ('torch', 'transformers', 'peft', 'datasets') if name in sys.modules))\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.splitlines()[-1] == ""


def start(given: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-m", "server", *given]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed_at(many: int, folder: Path, given: list[str], number: signal.Signals) -> tuple[int, str]:
    """Run until the journal holds `many` answers, then send a signal; the exit code and standard error."""
    with start(given) as running:
        while answered(folder) < many:
            assert running.poll() is None, running.communicate()
            time.sleep(0.002)
        running.send_signal(number)
        _, told = running.communicate(timeout=60)
    return running.returncode, told


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_asks_nothing_twice(teacher: str, capsys: Out) -> None:
    """The teacher's own count of requests is the proof."""

    own = (ROOT / "adapters" / "datasets" / "oneseek_identity_sv_v1.jsonl").read_text(encoding="utf-8")
    Path("seeds.jsonl").write_text("".join(own.splitlines(keepends=True)[:40]), encoding="utf-8")

    def given(name: str) -> list[str]:
        more = ("--examples", "60", "--paraphrases", "1", "--no-train", "--json", "--output", name)
        return arguments(teacher, "--seeds", "seeds.jsonl", *more)

    before = settled(teacher)
    assert main(given("whole")) == 0
    needed = settled(teacher) - before
    assert needed == answered(Path("whole")) >= 100
    capsys.readouterr()

    folder = Path("out")
    moments = (1, 20, 41, 70)
    before = settled(teacher)
    for many in moments:
        code, _ = killed_at(many, folder, given("out"), signal.SIGKILL)
        assert code == -signal.SIGKILL
    spent = settled(teacher) - before
    held = answered(folder)
    # A kill loses what was in flight, and of what was answered nothing.
    assert held <= spent <= held + AT_ONCE * len(moments)
    before = settled(teacher)
    assert main(given("out")) == 0
    assert settled(teacher) - before == needed - held
    for name in ("data.jsonl", "provenance.jsonl"):
        assert (folder / name).read_bytes() == (Path("whole") / name).read_bytes()
    assert answered(folder) == needed


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_waits_for_what_is_in_flight_and_says_how_to_go_on(
    teacher: str, number: signal.Signals
) -> None:
    folder = Path("out")
    given = arguments(teacher, "--examples", "120", "--paraphrases", "0", "--no-train", "--output", "out")
    before = settled(teacher)
    code, told = killed_at(30, folder, given, number)
    assert code == 130
    assert told.splitlines()[-1].startswith("interrupted; ")
    assert settled(teacher) - before == answered(folder) < 120
    with start(given) as again:
        out, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert out.startswith("made 12")
    assert settled(teacher) - before == answered(folder)
