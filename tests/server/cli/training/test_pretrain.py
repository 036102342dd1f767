"""`oneseek train scratch` and `train continue`, as people run them: killed, resumed, recorded and served."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import LlamaForCausalLM

from adapters.ledger import Ledger
from adapters.lora.digest import base_digest
from adapters.training.finetune.base import load_tokenizer
from server.__main__ import main
from server.request import GenerationRequest, Sampling
from tests.server.engines.making import ENGINES, EngineLimits
from tests.server.surroundings import start_afresh

Out = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[4]
ARCH = """
model:
  model_type: llama
  hidden_size: 32
  intermediate_size: 48
  num_hidden_layers: 2
  num_attention_heads: 2
  num_key_value_heads: 1
  head_dim: 16
  max_position_embeddings: 64
tokenizer: {vocabulary: 380}
training:
  steps: 40
  batch_size: 2
  sequence_length: 32
  matrix_learning_rate: 1e-2
  warmup: 1
  held_out: 0.1
  held_out_rows: 2
  judge_every: 20
  save_every: 0
  precision: fp32
  threads: 1
data:
  - {path: text, weight: 2}
  - chat.jsonl
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = random.Random(0)
    words = ["hund", "katt", "sol", "hav", "skog", "bil", "röd", "ser", "och", "en"]
    folder = tmp_path / "a place"
    (folder / "text").mkdir(parents=True)
    for number in range(2):
        rows = [{"text": " ".join(rng.choices(words, k=rng.randint(3, 40)))} for _ in range(60)]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "text" / f"{number}.jsonl").write_text(text, encoding="utf-8")
    chat = [
        {"messages": [{"role": "user", "content": f"{a}?"}, {"role": "assistant", "content": f"{a}!"}]}
        for a in words
    ]
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chat), encoding="utf-8")
    (folder / "arch.yaml").write_text(ARCH, encoding="utf-8")
    start_afresh(monkeypatch, tmp_path / "home")
    monkeypatch.chdir(folder)
    return folder


def greedy(folder: Path, scratch: Path, prompt: Sequence[int], count: int) -> tuple[list[int], list[float]]:
    """What the embedded engine answers, and the logarithms of the probabilities of that."""

    async def ask() -> tuple[list[int], list[float]]:
        engine = ENGINES["embedded"](folder, scratch, [], EngineLimits())
        await engine.start()
        try:
            sampling = Sampling(max_tokens=count, temperature=0.0, ignore_eos=True, logprobs=1)
            request = GenerationRequest(request_id="r", prompt=tuple(prompt), sampling=sampling)
            ids: list[int] = []
            logprobs: list[float] = []
            async for delta in engine.generate(request):
                ids += delta.token_ids
                logprobs += [one.logprob for one in delta.logprobs]
            return ids, logprobs
        finally:
            await engine.close()

    return asyncio.run(ask())


def test_a_base_from_nothing_is_recorded_continued_and_served(
    place: Path, tmp_path: Path, capsys: Out
) -> None:
    assert main(["train", "scratch", "--config", "arch.yaml", "--output", "models/new", "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert "models/new: " in told["summary"]
    assert told["summary"].endswith(" oneseek serve --base-model models/new")
    assert told["metrics"]["tokens"] == 40 * 2 * 32
    assert told["digest"] == base_digest(place / "models" / "new")
    events = {json.loads(line)["event"] for line in captured.err.splitlines() if line.startswith("{")}
    assert {"tokenizer", "training", "progress", "held out"} <= events
    home = tmp_path / "home"
    assert (home / "training" / "reports" / "new" / "loss.png").is_file()
    assert [path.name for path in (home / "training").iterdir()] == ["reports"]
    reports = home / "training" / "reports"
    assert json.loads((reports / "new" / "report.json").read_text("utf-8"))["threads"] == 1

    torch.set_num_threads(2)
    more = ["train", "continue", "--base-model", "models/new", "--data", "text=3", "chat.jsonl"]
    quick = ["--steps", "2", "--batch-size", "2", "--sequence-length", "48", "--precision", "fp32"]
    assert main([*more, *quick, "--output", "models/more", "--saved-as", "fp32"]) == 0
    captured = capsys.readouterr()
    curve, last = captured.out.splitlines()[-2:]
    assert "models/more: " in last
    assert curve.split(maxsplit=1) == ["curve", str(reports / "more" / "loss.png")]
    said = [json.loads(line) for line in captured.err.splitlines() if line.startswith("{")]
    (threads,) = (event for event in said if event["event"] == "threads")
    (begun,) = (event for event in said if event["event"] == "training")
    assert (threads["of"], threads["picked"]) == (2, begun["threads"])
    assert json.loads((reports / "more" / "report.json").read_text("utf-8"))["threads"] == begun["threads"]
    ledger = Ledger.open(home / "ledger")
    assert ledger.verify().state == "intact"
    first, second = (entry.record for entry in ledger.entries())
    assert (first.action, first.subject, second.subject) == ("train", "new", "more")
    assert first.outputs == {"model": told["digest"]}
    assert second.inputs["base"] == told["digest"]
    assert len(second.inputs["data"]) == 2
    assert (first.details["kind"], first.details["seed"]) == ("scratch", 42)

    model = LlamaForCausalLM.from_pretrained(place / "models" / "more", dtype=torch.float32).eval()
    prompt = load_tokenizer(place / "models" / "more")("hund katt sol")["input_ids"]
    with torch.no_grad():
        expected = cast("Any", model).generate(
            torch.tensor([prompt]), max_new_tokens=12, min_new_tokens=12, do_sample=False
        )
        logits = model(expected).logits[0, len(prompt) - 1 : -1]
    answer = expected[0, len(prompt) :].tolist()
    wanted = torch.log_softmax(logits, -1)[range(12), answer].tolist()
    ids, logprobs = greedy(place / "models" / "more", tmp_path / "scratch", prompt, 12)
    assert ids == answer
    assert logprobs == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scratch", "--steps", "1", "--output", "x"], "model: "),
        (["scratch", "--config", "arch.yaml"], "output: "),
        (["scratch", "--config", "arch.yaml", "--output", "text"], "output: text "),
        (["scratch", "--config", "odd.yaml", "--output", "x"], "training.warm_up: "),
        (
            ["scratch", "--config", "bad.yaml", "--output", "x"],
            "training.steps: 'x' ",
        ),
        (
            ["scratch", "--config", "bad.yaml", "--steps", "2", "--output", "x"],
            "training.threads: 0 ",
        ),
        (
            ["scratch", "--config", "bad.yaml", "--steps", "2", "--threads", "1025", "--output", "x"],
            "threads: 1025 ",
        ),
        (["continue", "--steps", "1", "--output", "x"], "base_model: "),
        (["continue", "--base-model", "text", "--output", "x"], "steps: "),
        (["continue", "--base-model", "b", "--steps", "x", "--output", "x"], "steps: 'x' "),
        (
            ["continue", "--base-model", "b", "--steps", "1", "--data", "none", "--output", "x"],
            "data: none ",
        ),
        (["continue", "--base-model", "b", "--steps", "1", "--output", "x"], "data: "),
        (
            ["continue", "--base-model", "b", "--steps", "1", "--data", "text", "--output", "x"],
            "base_model: ",
        ),
    ],
)
def test_mistakes_are_refused_by_name(place: Path, capsys: Out, arguments: list[str], message: str) -> None:
    Path("odd.yaml").write_text("training: {warm_up: 3}\n", encoding="utf-8")
    Path("bad.yaml").write_text("training: {steps: x, threads: 0}\n", encoding="utf-8")
    assert main(["train", *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"oneseek: {message}")
    assert not Path("x").exists()


def command(output: str, *more: str) -> list[str]:
    verb = [sys.executable, "-W", "ignore", "-m", "server", "train", "scratch", "--config", "arch.yaml"]
    return [*verb, "--output", output, *more]


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_killed_and_interrupted_at_random_it_ends_as_if_nothing_had_been(place: Path, tmp_path: Path) -> None:
    assert main(command("whole")[5:]) == 0
    rng, signals = random.Random(7), [signal.SIGKILL, signal.SIGINT, signal.SIGKILL]
    os.environ["ONESEEK_HOME"] = str(tmp_path / "other")
    ended: list[int] = []
    for wanted in signals:
        resume = ["--resume"] if (tmp_path / "other" / "training").exists() else []
        with subprocess.Popen(command("halves", *resume), env=environ(), stderr=subprocess.PIPE) as running:
            assert running.stderr is not None
            for line in running.stderr:
                if b'"progress"' in line:
                    time.sleep(rng.random() * 0.4)
                    running.send_signal(wanted)
                    break
            running.stderr.read()
            ended.append(running.wait(60))
        assert not (place / "halves").exists()
    assert ended == [-signal.SIGKILL, 130, -signal.SIGKILL]
    subprocess.run(command("halves", "--resume"), env=environ(), check=True, capture_output=True)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (place / "halves" / name).read_bytes() == (place / "whole" / name).read_bytes()
    (entry,) = Ledger.open(tmp_path / "other" / "ledger").entries()
    assert entry.record.outputs == {"model": base_digest(place / "whole")}


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(place: Path, tmp_path: Path) -> None:
    """Losses are determined; Adam's parameters are not, where a gradient is near zero (test_trainer.py)."""
    assert main(command("one", "--steps", "6")[5:]) == 0
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "server"]
    arguments = command("two", "--steps", "6", "--micro-batch-size", "1")[5:]
    subprocess.run([sys.executable, *launcher, *arguments], env=environ(), check=True, capture_output=True)
    reports = tmp_path / "home" / "training" / "reports"
    one, two = (json.loads((reports / name / "report.json").read_text("utf-8")) for name in ("one", "two"))
    for series in ("loss", "held_out_loss"):
        assert [step for step, _ in two[series]] == [step for step, _ in one[series]]
        losses = [loss for _, loss in one[series]]
        assert [loss for _, loss in two[series]] == pytest.approx(losses, rel=1e-3)
    assert one["loss"][-1][1] < 0.95 * one["loss"][0][1]
