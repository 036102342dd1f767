"""Small SentencePiece models, trained here, and texts that tell two tokenizers apart."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import sentencepiece

SPECIAL: dict[str, Any] = {
    "pad_id": 0,
    "unk_id": 1,
    "bos_id": 2,
    "eos_id": 3,
    "eos_piece": "<|endoftext|>",
}
_LINE = (
    "Vem är du och vad kan du göra för mig? Överallt, åskväder; ett-två "
    "The quick brown fox can't jump over 1,234.56 lazy dogs... it's fine! "
    "naïve café Ångström ŒUVRE straße Привет 你好 日本語 العربية ½ ﬁ № ⅷ ａｂｃ."
)
WORDS = _LINE.split()
_ODD_CODES = (*range(0x20), *range(0x7F, 0xA1), 0xAD, 0x2002, 0x2003, 0x2009, 0x200A, 0x200B, 0x202F)
ODD = [chr(code) for code in (*_ODD_CODES, 0x3000, 0xFFFC, 0xFEFF, 0x2028, 0x0301, 0x0308, 0x2581)]
EMOJI = ["😀", "👩‍💻", "🇸🇪", "👍🏽", "❤️", "🧑‍🚀"]
MARKS = ["<s>", "</s>", "<pad>", "<|endoftext|>", "<unk>", "<0x41>", "<|python|>", "[INST]"]


def train(folder: Path, **options: Any) -> Path:
    """A folder with a spiece.model as GPT-SW3's, and what `options` change of it."""
    data = Path(__file__).parents[3] / "adapters" / "datasets"
    lines = [line for path in sorted(data.glob("*.jsonl")) for line in _texts(path)] or WORDS
    model = io.BytesIO()
    fields: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": 1200,
        "byte_fallback": True,
        "split_digits": True,
        "remove_extra_whitespaces": False,
        "character_coverage": 0.999,
        "num_threads": 1,
        "minloglevel": 2,
    }
    trainer: Any = sentencepiece.SentencePieceTrainer
    trainer.train(
        sentence_iterator=iter([*lines, *WORDS]), model_writer=model, **(SPECIAL | fields | options)
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    return folder


def _texts(path: Path) -> list[str]:
    rows: list[dict[str, str]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [value for row in rows for value in row.values()]


def texts(count: int, seed: int = 0) -> list[str]:
    """Swedish and English, emoji, control characters, odd and repeated space, special tokens spelled."""
    chance = random.Random(seed)

    def piece() -> str:
        kind = chance.random()
        if kind < 0.55:
            return chance.choice(WORDS)
        if kind < 0.7:
            return chance.choice(" \t\n") * chance.randint(1, 7)
        if kind < 0.8:
            return chance.choice(ODD)
        if kind < 0.9:
            return chance.choice(EMOJI)
        if kind < 0.95:
            return chance.choice(MARKS)
        return chance.choice("aåäö19.") * chance.randint(1, 6)

    joined = [
        chance.choice(["", " "]).join(piece() for _ in range(chance.randint(1, 14))) for _ in range(count)
    ]
    return ["", " ", "  ", "▁", *joined][:count]
