"""Files and folders that take the place of older ones at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from adapters.files.atomic import flush_tree, staged_file

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""What a tokenizer and its chat template may lie in."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file, then give it the name `path` at once."""
    with staged_file(path) as temporary:
        write(temporary)


def write_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a folder, then give it the name `path`, in the place of one that was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        write(temporary)
        flush_tree(temporary)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
