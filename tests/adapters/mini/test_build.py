"""The one command builds everything, goes on where it was stopped, and refuses another's unfinished work."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from adapters.mini import feed
from adapters.mini.build import Build, build
from adapters.mini.recipe import RECIPES
from adapters.training.loop.progress import Reporter
from adapters.training.loop.schedule import Schedule

# PEFT reads a property that transformers has begun to rename.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
SMOKE = RECIPES["smoke"]


class StopError(Exception):
    pass


class Interrupting(Reporter):
    """Stops the build when the event comes."""

    def __init__(self, stream: io.StringIO, stage: str, done: int) -> None:
        super().__init__(stream, every=0.0)
        self.at = (stage, done)

    def print_event(self, event: str, **values: object) -> None:
        super().print_event(event, **values)
        if (values.get("stage"), values.get("done")) == self.at:
            raise StopError


def events(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, object]]]:
    output = tmp_path_factory.mktemp("built")
    first = io.StringIO()
    with pytest.raises(StopError):
        Build(SMOKE, output, Interrupting(first, "oneseek-mini-en", 2)).run()
    second = io.StringIO()
    build(SMOKE, output, Reporter(second, every=0.0))
    return output, events(second)


def test_the_build_leaves_a_base_two_adapters_and_its_record(
    built: tuple[Path, list[dict[str, object]]],
) -> None:
    output, _ = built
    assert sorted(path.name for path in output.iterdir()) == [
        "base",
        "build.json",
        "oneseek-mini-en",
        "oneseek-mini-sv",
    ]
    assert {path.name for path in (output / "base").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    for name in ("oneseek-mini-en", "oneseek-mini-sv"):
        assert {path.name for path in (output / name).iterdir()} == {
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
            "oneseek.json",
        }
    record = json.loads((output / "build.json").read_text(encoding="utf-8"))
    assert record["recipe"]["name"] == "smoke"
    assert record["world"]["steps"] == SMOKE.base.steps
    assert record["voice"]["tokens"] > 0
    assert set(record["versions"]) == {"torch", "transformers", "peft", "tokenizers"}


def test_the_second_run_goes_on_after_the_base(built: tuple[Path, list[dict[str, object]]]) -> None:
    _, said = built
    stages = {event["stage"] for event in said if event["event"] == "progress"}
    assert "world" not in stages
    assert {"oneseek-mini-en", "oneseek-mini-sv"} <= stages
    assert said[0]["event"] == "resuming"


def test_an_interrupted_base_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    weights: list[torch.Tensor] = []
    for name, stop in (("whole", None), ("halves", 3)):
        output = tmp_path / name
        if stop is not None:
            halves = Build(SMOKE, output, Interrupting(io.StringIO(), "world", stop))
            with pytest.raises(StopError):
                halves.run()
        build(SMOKE, output, Reporter(io.StringIO()))
        model = AutoModelForCausalLM.from_pretrained(output / "base")
        weights.append(torch.cat([value.float().flatten() for value in model.parameters()]))
    assert torch.equal(weights[0], weights[1])


def test_unfinished_work_of_another_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StopError):
        Build(SMOKE, tmp_path, Interrupting(io.StringIO(), "world", 1)).run()
    other = replace(SMOKE, seed=1)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / ".work"))):
        build(other, tmp_path, Reporter(io.StringIO()))


def test_a_schedule_warms_up_stays_and_falls() -> None:
    schedule = Schedule(steps=100, warmup=10, decay=0.5)
    factors = [schedule.factor(step) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10:50] == [1.0] * 40
    assert factors[50:] == sorted(factors[50:], reverse=True)
    assert factors[-1] == pytest.approx(0.02)
    with pytest.raises(ValueError, match=r"\bsteps\b.* 0\b"):
        Schedule(steps=0)


@pytest.mark.parametrize("language", ["en", "sv"])
def test_every_kind_of_identity_question_has_an_answer_of_the_rows(language: feed.Language) -> None:
    rows, _ = feed.rows_for(language)
    found = {topic.name for row in rows if (topic := feed.topic_of(row["instruction"], language)) is not None}
    assert {"who", "name", "maker", "purpose", "human", "other", "trust", "how", "can", "hi_name"} <= found
