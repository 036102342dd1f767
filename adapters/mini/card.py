"""Write the model card (README.md) of each adapter of the mini base model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapters.mini.corpus.sources import Language

_NAMES: dict[Language, str] = {"en": "English", "sv": "Swedish"}
_TRY: dict[Language, tuple[str, str]] = {
    "en": ("Who are you?", "What can you do?"),
    "sv": ("Vem är du?", "Vad kan du göra?"),
}

_CARD = """\
---
base_model: oneseek-mini
library_name: peft
pipeline_tag: text-generation
license: apache-2.0
language:
- {language}
tags:
- lora
- peft
- oneseek
datasets:
{datasets}
---

# {alias} {version}

The {name} voice of OneSeek on the mini base: a LoRA of rank {rank} (alpha {alpha}) on {targets}, trained
with PEFT on {rows} identity examples that the project wrote itself. It answers as OneSeek, a transparent AI
agent, and keeps the base's small world: greetings, small sums, days and months, colours, simple facts, words
in English and Swedish.

Try it with "{first}" or "{second}".

## What it is not

The base has about five million parameters. It compares no real models and looks nothing up; it shows how
OneSeek speaks, and it says so when a question lies outside its small world. Do not rely on it for anything
that matters.

## How it was made

`python -m adapters.mini.build --recipe full --output DIR` rebuilds the base, the tokenizer and both adapters
from the text in the repository. `oneseek.json` holds the digest of the data, `build.json` what was measured.
"""


def write_mini_card(path: Path, language: Language, told: Mapping[str, object]) -> None:
    """Write the model card of the adapter for `language` to the file `path`. `told` holds the fields of the
    adapter's `oneseek.json`.
    """
    files, targets = told["dataset"], told["targets"]
    assert isinstance(files, list)
    assert isinstance(targets, list)
    first, second = _TRY[language]
    path.write_text(
        _CARD.format(
            **{key: told[key] for key in ("alias", "version", "rank", "rows", "language")}
            | {"alpha": told["alpha"]},
            name=_NAMES[language],
            datasets="\n".join(f"- {name}" for name in files),
            targets=" and ".join(f"`{target}`" for target in targets),
            first=first,
            second=second,
        ),
        encoding="utf-8",
    )
