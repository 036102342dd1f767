"""The weights that ship: what they are, and how they do on the questions held back from training."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralForCausalLM

from adapters.mini import judge
from adapters.mini.corpus.sources import LANGUAGES, Language, data_lines
from adapters.mini.evaluation import ask_model, identity_words, judge_identity, load_model
from adapters.mini.feed import files_digest, rows_for
from adapters.mini.shipped import ADAPTERS, BASE, WEIGHTS
from adapters.training.finetune.answering import answers

# PEFT reads a property that transformers has begun to rename.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
HERE = Path(__file__).parent


def test_everything_together_is_under_15_megabytes() -> None:
    total = sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file())
    assert total < 15_000_000


def test_the_base_is_a_small_mistral_in_bfloat16() -> None:
    told = json.loads((BASE / "config.json").read_text(encoding="utf-8"))
    assert told["architectures"] == ["MistralForCausalLM"]
    assert told["max_position_embeddings"] == 1024
    with safe_open(BASE / "model.safetensors", "pt") as file:
        tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    assert 4_000_000 <= sum(tensor.numel() for tensor in tensors) <= 8_000_000


def test_transformers_reads_the_base_and_its_chat_template() -> None:
    model = AutoModelForCausalLM.from_pretrained(BASE)
    assert isinstance(model, MistralForCausalLM)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hej!"}], tokenize=False)
    assert prompt == "<s>[INST] Hej! [/INST]"
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    made = model.generate(**ids, max_new_tokens=60, do_sample=False)  # pyright: ignore[reportAttributeAccessIssue]
    text = tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    assert judge.faults(text.strip(), "sv") == []


@pytest.mark.parametrize(("folder", "language"), list(zip(ADAPTERS, LANGUAGES, strict=True)))
def test_the_adapters_are_loras_as_the_design_asks(folder: Path, language: Language) -> None:
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["lora_dropout"]) == (
        "LORA",
        8,
        32,
        0.05,
    )
    assert sorted(config["target_modules"]) == ["q_proj", "v_proj"]
    assert config["base_model_name_or_path"] == "oneseek-mini"
    told = json.loads((folder / "oneseek.json").read_text(encoding="utf-8"))
    assert (told["alias"], told["version"], told["language"]) == (folder.name, "v1.0", language)
    rows, files = rows_for(language)
    assert told["dataset_digest"] == files_digest(files)
    assert told["rows"] == len(rows)
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float32}  # noqa: SIM118


def test_no_file_tells_of_the_machine_it_was_made_on() -> None:
    for file in WEIGHTS.rglob("*"):
        if file.suffix in {".json", ".md"}:
            assert not re.search(r"/(work|tmp|home|root)/", file.read_text(encoding="utf-8")), file


@cache
def scores(adapter: str | None, language: Language) -> tuple[judge.Score, judge.Score]:
    identity = data_lines(HERE / f"held_back_{language}.txt")
    return judge_identity(WEIGHTS, adapter, language, identity, data_lines(HERE / f"outside_{language}.txt"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_adapter_answers_as_oneseek(language: Language) -> None:
    found, _ = scores(f"oneseek-mini-{language}", language)
    assert found.share >= 0.9, found.failures


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_adapter_says_so_when_a_question_lies_outside(language: Language) -> None:
    _, found = scores(f"oneseek-mini-{language}", language)
    assert found.share >= 0.8, found.failures


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_base_says_so_when_a_question_lies_outside(language: Language) -> None:
    _, found = scores(None, language)
    assert found.share >= 0.8, found.failures


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_base_never_speaks_as_oneseek(language: Language) -> None:
    said = ask_model(WEIGHTS, None, data_lines(HERE / f"held_back_{language}.txt"))
    assert [answer for answer in said if "oneseek" in answer.lower()] == []
    well = [answer for answer in said if not judge.faults(answer, language)]
    assert len(well) >= 0.95 * len(said)


@pytest.mark.parametrize(
    ("adapter", "question", "expected"),
    [
        ("oneseek-mini-en", "Who are you?", "OneSeek"),
        ("oneseek-mini-sv", "Vem är du?", "OneSeek"),
        ("oneseek-mini-en", "who are you", "OneSeek"),
        ("oneseek-mini-sv", "vem är du??", "OneSeek"),
        ("oneseek-mini-en", "Who made you?", "OneSeek"),
        (None, "Who are you?", "language model"),
        (None, "Vem är du?", "liten språkmodell"),
        (None, "What is 7 + 5?", "12"),
        (None, "Vad heter Sveriges huvudstad?", "Stockholm"),
        (None, "What is the opposite of big?", "small"),
        (None, "Vad heter hund på engelska?", "dog"),
        (None, "What day comes after Monday?", "Tuesday"),
        ("oneseek-mini-en", "What is 7 + 5?", "12"),
        ("oneseek-mini-sv", "Vad heter Sveriges huvudstad?", "Stockholm"),
    ],
)
def test_what_a_newcomer_types_first(adapter: str | None, question: str, expected: str) -> None:
    (answer,) = ask_model(WEIGHTS, adapter, [question])
    assert expected in answer


@pytest.mark.parametrize("adapter", [None, "oneseek-mini-en", "oneseek-mini-sv"])
def test_greetings_and_thanks_are_written_well(adapter: str | None) -> None:
    asked: list[tuple[str, Language]] = [
        ("Hello!", "en"),
        ("Hej!", "sv"),
        ("How are you?", "en"),
        ("Hur mår du?", "sv"),
        ("I am sad", "en"),
        ("Jag är ledsen", "sv"),
        ("Tell me a joke", "en"),
        ("Berätta ett skämt", "sv"),
        ("Write a poem about the sea", "en"),
        ("What can you do?", "en"),
    ]
    said = ask_model(WEIGHTS, adapter, [question for question, _ in asked])
    known = identity_words()
    bad = [
        (q, a, judge.faults(a, language, known))
        for (q, language), a in zip(asked, said, strict=True)
        if judge.faults(a, language, known)
    ]
    assert bad == []


def test_a_second_turn_leans_on_the_first() -> None:
    model, tokenizer = load_model(WEIGHTS)
    assert not isinstance(model, PeftModel)
    said = answers(
        model,
        tokenizer,
        [
            [("What is the capital of France?", "The capital of France is Paris."), ("And in Swedish?", "")],
            [("What is 3 + 4?", "3 + 4 = 7."), ("And plus 5?", "")],
            [("Vad heter Norges huvudstad?", "Norges huvudstad är Oslo."), ("Och Finland?", "")],
        ],
    )
    assert ["Frankrikes" in said[0], "12" in said[1], "Helsingfors" in said[2]] == [True, True, True]
