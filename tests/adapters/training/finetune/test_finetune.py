"""Runs on a tiny random base: what changes, what does not, and what an interruption costs."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from adapters.lora.digest import base_digest
from adapters.training.finetune.base import (
    Machine,
    check_machine,
    load_base,
    load_tokenizer,
    resolve_precision,
)
from adapters.training.finetune.conversations import Conversation, hold_out, in_language, read_conversations
from adapters.training.finetune.curve import terminal_lines, write_png
from adapters.training.finetune.examples import TokenizedExample, examples
from adapters.training.finetune.finetune import FinetuneRun, finetune, last_checkpoint
from adapters.training.loop.callbacks import Curve, Interruption
from adapters.training.loop.launch import ALONE, Launch
from adapters.training.loop.options import OptionError, TrainOptions
from adapters.training.loop.progress import Reporter, Stage

MACHINE = Machine(cuda=0, bf16=False)
OPTIONS = TrainOptions(
    language="en",
    epochs=3,
    batch_size=2,
    learning_rate=3e-2,
    dropout=0.2,
    precision="fp32",
    rank=2,
    alpha=4,
    target_modules=("q_proj", "v_proj"),
)


def talk(question: str, answer: str) -> Conversation:
    return Conversation(({"role": "user", "content": question}, {"role": "assistant", "content": answer}))


TALKS = [talk(f"Who are you, number {n}?", "I am a small model for tests.") for n in range(8)]


class Nudging(Reporter):
    """Presses Ctrl-C while the step after `at` steps is on its way."""

    def __init__(self, at: int) -> None:
        super().__init__(StringIO())
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


def encoded(base: Path, talks: Sequence[Conversation]) -> list[TokenizedExample]:
    tokenizer = load_tokenizer(base)
    return [example for one in talks for example in examples(tokenizer, one)]


def run(
    base: Path,
    work: Path,
    options: TrainOptions = OPTIONS,
    *,
    resume: bool = False,
    reporter: Reporter | None = None,
    model: PreTrainedModel | None = None,
    held_out: Sequence[Conversation] = TALKS[:2],
) -> FinetuneRun:
    return finetune(
        model or load_base(base, options, MACHINE),
        load_tokenizer(base),
        encoded(base, TALKS[2:]),
        encoded(base, held_out),
        options,
        MACHINE,
        work=work,
        resume=resume,
        reporter=reporter or Reporter(StringIO()),
        interruption=Interruption(),
    )


def weights(found: FinetuneRun) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in found.model.named_parameters() if "lora_" in name}


def base_values(model: torch.nn.Module) -> str:
    """A digest over every parameter and buffer that is not the LoRA's."""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if "lora_" not in name:
            total.update(name.replace("base_model.model.", "").replace(".base_layer", "").encode())
            total.update(value.numpy().tobytes())
    return total.hexdigest()


def test_training_changes_the_lora_and_nothing_else(tiny_base: Path, tmp_path: Path) -> None:
    model = load_base(tiny_base, OPTIONS, MACHINE)
    files, values = base_digest(tiny_base), base_values(model)
    found = run(tiny_base, tmp_path, model=model)
    assert base_digest(tiny_base) == files
    assert base_values(found.model) == values
    trained = {name for name, value in found.model.named_parameters() if value.requires_grad}
    assert trained == set(weights(found))
    assert len(trained) == 3 * 2 * 2
    assert all(bool(value.abs().sum() > 0) for value in weights(found).values())
    assert found.curve.train[-1][1] < 0.7 * found.curve.train[0][1]
    assert found.curve.accuracy[-1][1] > found.curve.accuracy[0][1]
    assert (found.steps, found.planned, found.interrupted) == (9, 9, False)


@pytest.mark.parametrize(("step", "checkpointing"), [(5, True), (5, False), (3, True)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    tiny_base: Path, tmp_path: Path, step: int, checkpointing: bool
) -> None:
    options = replace(OPTIONS, gradient_checkpointing=checkpointing)
    whole = run(tiny_base, tmp_path / "whole", options)
    broken = run(tiny_base, tmp_path / "broken", options, reporter=Nudging(step - 1))
    assert (broken.interrupted, broken.steps, broken.planned) == (True, step, 9)
    resumed = run(tiny_base, tmp_path / "broken", options, resume=True)
    assert (resumed.interrupted, resumed.steps) == (False, 9)
    assert resumed.curve.train == whole.curve.train
    assert resumed.curve.held_out == whole.curve.held_out
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_an_interrupt_leaves_the_handlers_as_they_were(tiny_base: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    run(tiny_base, tmp_path, reporter=Nudging(1))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_is_not_caught() -> None:
    interruption = Interruption()
    # A shell's background jobs are started with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interruption.listening():
            signal.raise_signal(signal.SIGINT)
            assert interruption.asked
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_half_written_checkpoint_is_passed_over(tiny_base: Path, tmp_path: Path) -> None:
    run(tiny_base, tmp_path)
    newest = tmp_path / "checkpoint-9"
    shutil.copytree(newest, tmp_path / "checkpoint-of-mine")
    assert last_checkpoint(tmp_path) == newest
    state = newest / "trainer_state.json"
    state.write_text(state.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    older = last_checkpoint(tmp_path)
    assert older is not None
    assert older != newest
    assert run(tiny_base, tmp_path, resume=True).steps == 9


def test_a_new_run_begins_at_the_beginning(tiny_base: Path, tmp_path: Path) -> None:
    run(tiny_base, tmp_path, reporter=Nudging(4))
    assert run(tiny_base, tmp_path).curve.train[0][0] == 1


def test_training_ends_early_where_held_out_loss_rises(tiny_base: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=12.0, early_stop=1, schedule="constant")
    others = [talk("Vem är du?", "Jag svarar på två språk. Åh, så bra! Överallt.")]
    found = run(tiny_base, tmp_path, options, held_out=others)
    assert found.steps < found.planned == 36
    best = found.best_held_out
    assert best is not None
    assert best[1] == min(loss for _, loss in found.curve.held_out)
    with torch.no_grad():
        (example,) = encoded(tiny_base, others)
        kept = found.model.eval()(**{name: torch.tensor([ids]) for name, ids in example.items()})
    assert kept.loss.item() == pytest.approx(best[1], rel=1e-4)


def test_without_held_out_examples_all_epochs_are_run(tiny_base: Path, tmp_path: Path) -> None:
    found = run(tiny_base, tmp_path, held_out=())
    assert (found.steps, found.curve.held_out, found.best_held_out) == (9, (), None)


def test_the_seed_decides_everything(tiny_base: Path, tmp_path: Path) -> None:
    first, same = run(tiny_base, tmp_path / "a"), run(tiny_base, tmp_path / "b")
    other = run(tiny_base, tmp_path / "c", replace(OPTIONS, seed=43))
    assert first.curve == same.curve
    assert first.curve != other.curve


@pytest.mark.parametrize(
    ("machine", "values", "message"),
    [
        (
            Machine(cuda=0, bf16=True),
            {"load_in_4bit": True},
            "load_in_4bit: ",
        ),
        (Machine(cuda=2, bf16=True), {}, "devices: 2 "),
        (
            Machine(cuda=1, bf16=False),
            {"precision": "bf16"},
            "precision: ",
        ),
    ],
)
def test_what_a_machine_cannot_do_is_refused(machine: Machine, values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as refused:
        check_machine(TrainOptions(language="en", **values), machine)
    assert str(refused.value).startswith(message)


def test_bf16_is_taken_where_the_hardware_has_it() -> None:
    check_machine(OPTIONS, Machine(cuda=4, bf16=True, launch=Launch(processes=4, local_rank=0)))
    assert resolve_precision("auto", Machine(cuda=1, bf16=True)) == "bf16"
    assert resolve_precision("auto", MACHINE) == "fp32"
    assert Machine.here(ALONE).processes == 1


def test_an_unknown_target_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, target_modules=("q_proj", "w_proj"))
    with pytest.raises(OptionError, match=r"^target_modules: .*'w_proj'.*\bq_proj\b"):
        run(tiny_base, tmp_path, options)


def test_a_split_keeps_each_question_on_one_side() -> None:
    talks = [talk(question, f"Answer {n}.") for n in range(3) for question in ("A?", "a? ", "B?", "C?", "D?")]
    kept, held = hold_out(talks, 0.3, seed=1)
    assert len(kept) + len(held) == len(talks)
    assert not {one.question.strip().lower() for one in kept} & {one.question.strip().lower() for one in held}
    assert hold_out(talks, 0.3, seed=1) == (kept, held)
    assert hold_out(talks, 0.0, seed=1) == (talks, [])
    assert hold_out(talks[:1], 0.5, seed=1) == (talks[:1], [])


def test_answers_in_another_language_are_left_out() -> None:
    talks = [talk("?", "Jag är OneSeek."), talk("?", "I am OneSeek."), talk("?", "OneSeek.")]
    told = {"Jag är OneSeek.": "sv", "I am OneSeek.": "en"}
    assert [one.answers for one in in_language(talks, "sv", told.get)] == [["Jag är OneSeek."], ["OneSeek."]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 "),
        ("[]", "line 2 "),
        ('{"instruction": "A?", "output": " "}', "output"),
        ('{"messages": []}', "messages"),
        ('{"messages": [{"role": "user", "content": "A?"}]}', "line 2 "),
        ('{"messages": [{"role": "bot", "content": "A?"}]}', "role"),
    ],
)
def test_a_line_that_is_no_example_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "data.jsonl"
    good = json.dumps({"instruction": "Vem?", "input": "Åh", "output": "Jag."}, ensure_ascii=False)
    path.write_text(f"{good}\n{line}\n", encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        read_conversations(path)
    path.write_text(f"{good}\n\n", encoding="utf-8")
    (found,) = read_conversations(path)
    assert found.question.startswith("Vem?")
    assert "Åh" in found.question


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    curve = Curve(train=tuple((n, 1 / (n + 1)) for n in range(200)), held_out=((100, 0.4), (199, 0.2)))
    write_png(tmp_path / "loss.png", curve, "a title")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    loss, held = terminal_lines(curve)
    assert loss.split()[1] == "1.000"
    assert loss.count("█") == 1
    assert len(loss) < 100
    assert held.split() == ["held-out", "loss", "0.400", "█▁", "0.200"]
    assert terminal_lines(Curve((), ())) == []


def test_a_run_whose_loss_is_no_number_ends_and_is_told(tiny_base: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=12.0, learning_rate=3e37, max_grad_norm=1e30)
    found = run(tiny_base, tmp_path / "first", options)
    if not found.diverged:
        # At which rate the loss is not a number depends on how the CPU multiplies what overflows.
        found = run(tiny_base, tmp_path / "second", replace(options, learning_rate=1e30))
    assert found.diverged
    assert found.steps < found.planned
    assert len(terminal_lines(found.curve)) <= 2
    write_png(tmp_path / "loss.png", found.curve, "not a number")


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [
        ([1.0] * 8, False),
        ([1.0, 1.0, 0.9, 0.8, 0.8, 0.9, 1.4, 1.4], False),
        ([1.0, 1.0, 0.9, 0.8, 2.0, 3.0, 3.0, 3.0], True),
        ([1.0, float("nan")], True),
        ([], False),
    ],
)
def test_a_loss_that_rises_by_half_has_diverged(losses: list[float], diverged: bool) -> None:
    assert finished(losses).diverged is diverged
    assert finished([1.0], [float("inf")]).diverged


def finished(losses: Sequence[float], held_out: Sequence[float] = ()) -> FinetuneRun:
    """A run of two epochs with these losses."""
    curve = Curve(tuple(enumerate(losses, 1)), tuple(enumerate(held_out, 1)))
    model: Any = None
    return FinetuneRun(
        model=model,
        curve=curve,
        steps=3,
        planned=6,
        seconds=1.0,
        interrupted=False,
        main=True,
        planned_epochs=2.0,
    )


def test_a_run_says_which_epoch_was_kept_and_that_it_stopped_early() -> None:
    found = finished([1.0, 0.9, 0.8], [0.9, 0.5, 0.7])
    assert (found.kept_epoch, found.epochs, found.stopped_early) == (0.67, 1.0, True)
    assert not replace(found, interrupted=True).stopped_early
    assert finished([1.0, 0.9, 0.8]).kept_epoch == 1.0
