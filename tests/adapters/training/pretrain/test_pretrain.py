"""The loop that trains bases: what pieces, interruptions and continuing change, and what they do not."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adapters.lora.digest import base_digest
from adapters.training.finetune.base import load_tokenizer
from adapters.training.loop.options import OptionError
from adapters.training.loop.progress import Reporter, Stage
from adapters.training.loop.schedule import Phase
from adapters.training.pretrain.architecture import read_architecture
from adapters.training.pretrain.corpus_job import (
    PretrainInterrupted,
    PretrainJob,
    PretrainResult,
    run_pretraining,
)
from adapters.training.pretrain.pretrain_options import DataPart, PretrainOptions, read_plan
from adapters.training.pretrain.pretrain_record import BaseRecord

WORDS = [
    "hund",
    "katt",
    "sol",
    "måne",
    "hav",
    "skog",
    "väg",
    "bil",
    "röd",
    "blå",
    "springer",
    "ser",
    "äter",
    "och",
    "men",
    "är",
    "en",
    "den",
]
MODEL: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
OPTIONS = PretrainOptions(
    steps=8,
    batch_size=4,
    sequence_length=32,
    optimizer="muon",
    learning_rate=3e-3,
    warmup=1,
    held_out=0.1,
    held_out_rows=4,
    judge_every=3,
    save_every=0.0,
    precision="fp32",
    saved_as="fp32",
)


class Nudging(Reporter):
    """Presses Ctrl-C while the step after `at` steps is on its way."""

    def __init__(self, at: int) -> None:
        super().__init__(StringIO(), every=0.0)
        self._at = at

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Generator[Stage]:
        with super().stage(name, total, done) as stage:
            shown = stage.step

            def step(done: int, **values: float) -> None:
                shown(done, **values)
                if done == self._at:
                    signal.raise_signal(signal.SIGINT)

            stage.step = step  # pyright: ignore[reportAttributeAccessIssue] a keyboard where there is none
            yield stage


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(0)
    folder = tmp_path_factory.mktemp("text")
    for number in range(2):
        rows = [" ".join(rng.choices(WORDS, k=rng.randint(3, 50))) + "." for _ in range(80)]
        lines = "".join(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{number}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def job(text: Path, place: Path, **changes: Any) -> PretrainJob:
    given: dict[str, Any] = {
        "kind": "scratch",
        "options": OPTIONS,
        "model": MODEL,
        "tokenizer": {"vocabulary": 400},
        "data": (DataPart(str(text)),),
        "output": place / "made",
        "folder": place / "training",
        **changes,
    }
    return PretrainJob(**given)


def made(asked: PretrainJob) -> PretrainResult:
    outcome = run_pretraining(asked, Reporter(StringIO()))
    assert isinstance(outcome, PretrainResult)
    return outcome


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PretrainResult]:
    place = tmp_path_factory.mktemp("whole")
    return place / "made", made(job(text, place))


def test_a_base_comes_from_nothing_and_learns(whole: tuple[Path, PretrainResult]) -> None:
    folder, outcome = whole
    losses = [value for _, value in outcome.fitted.losses]
    assert len(losses) == 8
    assert losses[-1] < losses[0] - 0.5
    assert [step for step, _ in outcome.fitted.held_out] == [3, 6, 8]
    assert outcome.metrics["tokens"] == 8 * 4 * 32
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert {name: config[name] for name in MODEL} == MODEL
    assert (config["model_type"], config["sliding_window"]) == ("mistral", None)
    assert config["vocab_size"] == load_tokenizer(folder).vocab_size <= 400
    manifest = json.loads((folder / "oneseek_base.json").read_text(encoding="utf-8"))
    assert manifest["digest"] == base_digest(folder) == outcome.digest
    assert manifest["metrics"] == outcome.metrics
    report = outcome.work / "report"
    assert (report / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert len(outcome.curve_lines) == 2
    assert "chat_template" in (folder / "tokenizer_config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    text: Path, tmp_path: Path, whole: tuple[Path, PretrainResult], stop: int
) -> None:
    asked = job(text, tmp_path)
    stopped = run_pretraining(asked, Nudging(stop))
    assert isinstance(stopped, PretrainInterrupted)
    assert (stopped.step, stopped.planned) == (stop, 8)
    assert not asked.output.exists()
    with pytest.raises(OptionError, match="--resume"):
        run_pretraining(asked, Reporter(StringIO()))
    outcome = made(replace(asked, resume=True))
    assert (asked.output / "model.safetensors").read_bytes() == (whole[0] / "model.safetensors").read_bytes()
    assert outcome.fitted.losses == whole[1].fitted.losses
    assert outcome.fitted.held_out == whole[1].fitted.held_out


@pytest.mark.parametrize(
    "changes", [{"micro_batch_size": 1}, {"micro_batch_size": 3}, {"gradient_checkpointing": True}]
)
def test_how_it_is_computed_does_not_change_what_is_learnt(
    text: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """What it makes of the parameters is shown in test_trainer.py, with an optimizer that determines them."""
    options = replace(OPTIONS, optimizer="adamw", steps=3)
    one, other = (
        made(job(text, tmp_path / str(number), options=replace(options, **more))).fitted
        for number, more in enumerate(({}, changes))
    )
    for before, after in ((one.losses, other.losses), (one.held_out, other.held_out)):
        assert [step for step, _ in after] == [step for step, _ in before]
        assert [loss for _, loss in after] == pytest.approx([loss for _, loss in before], rel=1e-4)
    assert one.losses[-1][1] < 0.99 * one.losses[0][1]


def test_continuing_moves_every_weight_and_takes_the_tokenizer_along(
    text: Path, tmp_path: Path, whole: tuple[Path, PretrainResult]
) -> None:
    base, _ = whole
    before, noted = base_digest(base), list[BaseRecord]()
    asked = job(text, tmp_path, kind="continue", model=None, tokenizer=None, base=base)
    asked = replace(asked, options=replace(OPTIONS, optimizer="adamw", steps=2, gradient_checkpointing=True))
    outcome = run_pretraining(asked, Reporter(StringIO()), noted.append)
    assert isinstance(outcome, PretrainResult)
    assert base_digest(base) == before
    (known,) = noted
    assert known.inputs["base"] == before
    assert known.digest == outcome.digest == base_digest(asked.output)
    for name, value in weights(base).items():
        assert not torch.equal(weights(asked.output)[name], value), name
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (asked.output / name).read_bytes() == (base / name).read_bytes()
    assert (
        load_tokenizer(asked.output).apply_chat_template([{"role": "user", "content": "Hej"}], tokenize=False)
        == "<s>[INST] Hej [/INST]"
    )


def test_tokens_in_place_of_steps_count_every_phase() -> None:
    options = PretrainOptions(tokens=1000)
    phases = (Phase(until=0.5, rows=2, length=10), Phase(until=1.0, rows=1, length=40))
    assert options.schedule(phases).steps == 34
    assert options.schedule((Phase(until=1.0, rows=1, length=1000),)).steps == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_sizes": 1}, "model.hidden_sizes: .*hidden_size"),
        ({"vocab_size": 9}, "model.vocab_size: .*tokenizer"),
        ({"model_type": "gpt2"}, "model.model_type: .*'gpt2'.*llama, mistral"),
        ({"hidden_size": "big"}, "model.hidden_size: 'big'"),
        ({"num_key_value_heads": 3}, "model.num_key_value_heads: 3 "),
        ({"rms_norm_eps": "x"}, "model: .*rms_norm_eps"),
        ({"attention_bias": True, "model_type": "llama"}, "model.attention_bias: .*llama"),
    ],
)
def test_an_architecture_that_does_not_fit_is_refused_by_field(
    tiny_base: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        read_architecture({**MODEL, **changes}, load_tokenizer(tiny_base))


def test_a_wrong_architecture_is_refused_before_a_tokenizer_is_trained(text: Path, tmp_path: Path) -> None:
    told = StringIO()
    with pytest.raises(OptionError, match=r"model\.layers: "):
        run_pretraining(job(text, tmp_path, model={**MODEL, "layers": 2}), Reporter(told))
    assert "tokenizer" not in told.getvalue()


def test_a_weight_is_a_plain_number_or_part_of_the_path() -> None:
    assert DataPart.read("a=2.5") == DataPart("a", 2.5)
    for text in ("a", "a=1_0", "a=٣", "a= 2", "a=nan", "a=inf"):
        assert DataPart.read(text) == DataPart(text)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "save_every", "max_grad_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_option_that_is_not_finite_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(OptionError) as refused:
        PretrainOptions(steps=1, **{name: value})  # pyright: ignore[reportArgumentType] each name has its type
    assert refused.value.name == name


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("modell: {}", "modell: .*model"),
        ("training: {stepps: 3}", "training.stepps: .*steps"),
        ("training: {phases: [{until: 1}]}", r"training.phases\[0\]: .*until.*batch_size"),
        (
            "training: {phases: [{until: 0.5, batch_size: 1, sequence_length: 9}]}",
            r"training\.phases: .*\b1\b",
        ),
        ("data: [{path: a, share: 2}]", r"data\[0\].share: "),
        ("data: [a=0]", r"data: .*\bweight 0\b"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_by_name(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "arch.yaml"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        read_plan(path, scratch=True)


def test_a_plan_to_continue_has_no_model(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text("data: [a, {path: b, weight: 2}, c=0.5]\ntraining: {steps: 3}\n", encoding="utf-8")
    assert [(part.path, part.weight) for part in read_plan(path, scratch=False).data] == [
        ("a", 1.0),
        ("b", 2.0),
        ("c", 0.5),
    ]
    path.write_text("model: {}\n", encoding="utf-8")
    with pytest.raises(OptionError, match=r"^model: .*\btrain scratch\b"):
        read_plan(path, scratch=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "^steps: .*tokens"),
        ({"steps": 1, "tokens": 1}, "^steps: .*tokens"),
        ({"steps": 0}, "^steps: 0 "),
        ({"steps": 1, "decay": 0.0}, "^decay: 0 "),
        ({"steps": 1, "held_out": 0.9}, r"^held_out: 0\.9 "),
    ],
)
def test_options_that_do_not_fit_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        PretrainOptions(**given)


def test_rows_longer_than_the_context_and_other_mistakes_are_refused(text: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"sequence_length: 128 .*64"):
        run_pretraining(
            job(text, tmp_path, options=replace(OPTIONS, sequence_length=128)), Reporter(StringIO())
        )
    with pytest.raises(OptionError, match=r"^tokenizer: .*\bvocabulary\b"):
        run_pretraining(job(text, tmp_path, tokenizer={"size": 3}), Reporter(StringIO()))
    with pytest.raises(OptionError, match="resume: "):
        run_pretraining(job(text, tmp_path / "new", resume=True), Reporter(StringIO()))
