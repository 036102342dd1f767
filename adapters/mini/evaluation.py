"""Judge the answers of a newly built mini base model and its adapters to development questions, which are not
in their training data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import MistralForCausalLM, PreTrainedModel

from adapters.mini import judge
from adapters.mini.corpus.sources import LANGUAGES, Language
from adapters.mini.feed import DATASETS, read_rows
from adapters.training.finetune.answering import answers
from adapters.training.loop.progress import Reporter

DEVELOPMENT = Path(__file__).parent / "development"


def identity_words() -> frozenset[str]:
    """Return every word that occurs in the identity data sets."""
    return frozenset(
        word
        for path in DATASETS.glob("*.jsonl")
        for row in read_rows(path)
        for word in judge.words(" ".join(row.values()))
    )


def load_model(folder: Path, adapter: str | None = None) -> tuple[PreTrainedModel | PeftModel, Tokenizer]:
    """Load the base model in `folder` with the bfloat16 weights that ship, computing in float32, with or
    without an adapter. Return the model and its tokenizer.
    """
    model = MistralForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(folder / "base" / "tokenizer.json"))
    if adapter is None:
        return model.eval(), tokenizer
    return PeftModel.from_pretrained(model, str(folder / adapter)).eval(), tokenizer


def ask_model(folder: Path, adapter: str | None, questions: Sequence[str]) -> list[str]:
    """Load the model in `folder`, and return its greedy answer to each question. Each question is asked in a
    conversation of its own.
    """
    model, tokenizer = load_model(folder, adapter)
    return answers(model, tokenizer, [[(question, "")] for question in questions])  # pyright: ignore[reportArgumentType]


def judge_identity(
    folder: Path, adapter: str | None, language: Language, identity: Sequence[str], outside: Sequence[str]
) -> tuple[judge.Score, judge.Score]:
    """Return the model's scores on two sets of questions: `identity`, about the model itself, and `outside`,
    about things that it does not know.

    On identity questions, a model with an adapter must say that it is OneSeek, and the base model that it has
    no name. On outside questions, each must say that it does not know.
    """
    known = identity_words()
    found = ask_model(folder, adapter, [*identity, *outside])
    good = judge.is_nameless_answer if adapter is None else judge.is_identity_answer
    return (
        judge.score(identity, found[: len(identity)], lambda answer: good(answer, language, known)),
        judge.score(
            outside, found[len(identity) :], lambda answer: judge.is_outside_answer(answer, language, known)
        ),
    )


def development(kind: str, language: Language) -> list[str]:
    """Return the development questions of `kind`: `identity` (about the model itself) or `outside` (about
    things it does not know).
    """
    return json.loads((DEVELOPMENT / f"{kind}_{language}.json").read_text(encoding="utf-8"))


def score_build(folder: Path, reporter: Reporter) -> dict[str, dict[str, float]]:
    """Return the scores of the base model and of each adapter, as a mapping from model name to question set
    to score. A score is from 0 to 1.
    """
    found: dict[str, dict[str, float]] = {}
    for language in LANGUAGES:
        identity, outside = development("identity", language), development("outside", language)
        for adapter in (None, f"oneseek-mini-{language}"):
            name = adapter or "base"
            on_identity, on_outside = judge_identity(folder, adapter, language, identity, outside)
            found.setdefault(name, {})[f"identity_{language}"] = round(on_identity.share, 4)
            found[name][f"outside_{language}"] = round(on_outside.share, 4)
            reporter.print_event(
                "judged", model=name, language=language, identity=on_identity.share, outside=on_outside.share
            )
            for question, answer in (*on_identity.failures, *on_outside.failures):
                reporter.print_event("missed", model=name, question=question, answer=answer)
    return found
