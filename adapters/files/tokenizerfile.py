"""Which file of a folder is the base's tokenizer: one rule for finding, digest, serving and training."""

from __future__ import annotations

from pathlib import Path

TOKENIZER_FILE, SPIECE_FILE = "tokenizer.json", "spiece.model"
"""What `tokenizers` reads, and the SentencePiece model of GPT-SW3, which counts if there is nothing else."""


def tokenizer_file(folder: Path) -> Path | None:
    """The tokenizer of the base in `folder`; None if it has none that is read."""
    files = (folder / name for name in (TOKENIZER_FILE, SPIECE_FILE))
    return next((file for file in files if file.is_file()), None)
