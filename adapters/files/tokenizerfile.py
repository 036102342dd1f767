"""Find a base's tokenizer file. Discovery, digests, serving and training all use this rule."""

from __future__ import annotations

from pathlib import Path

TOKENIZER_FILE, SPIECE_FILE = "tokenizer.json", "spiece.model"
"""The file that `tokenizers` reads, and the SentencePiece model of GPT-SW3, which is used if the first is
missing.
"""


def tokenizer_file(folder: Path) -> Path | None:
    """Return the tokenizer file of the base in `folder`; None if it has neither tokenizer.json nor
    spiece.model.
    """
    files = (folder / name for name in (TOKENIZER_FILE, SPIECE_FILE))
    return next((file for file in files if file.is_file()), None)
