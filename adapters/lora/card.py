"""The model card of an adapter version: README.md with the YAML front matter that PEFT and model hubs
read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from adapters.errors import AdapterError
from adapters.files.jsonfile import read_object
from adapters.files.regular import copy_regular, read_regular
from adapters.lora.config import CONFIG_FILE, MAX_CONFIG_BYTES
from adapters.lora.manifest import Adapter

CARD_FILE = "README.md"
_MAX_CARD_BYTES = 1 << 20
_FRONT = 4096
"""Number of characters at the start of a model card in which front matter is looked for."""
_PLACEHOLDER = "[More Information Needed]"
"""Text that PEFT leaves in a model card whose author filled nothing in."""


def write_card(
    folder: Path, adapter: Adapter, base_name: str, manifest: Mapping[str, Any], source: Path
) -> None:
    """Write the model card of an adapter version into `folder`. Keep the card in the folder `source` if its
    author wrote it.

    The card is replaced by a new one if it is missing, too large, without PEFT's front matter, or still
    PEFT's template. The new card shows the fields of `manifest`.
    """
    written = source / CARD_FILE
    if _says_something(written):
        copy_regular(written, folder / CARD_FILE)
        return
    config = read_object(folder / CONFIG_FILE, MAX_CONFIG_BYTES, AdapterError)
    text = card(adapter, _public(config.get("base_model_name_or_path"), base_name), manifest)
    (folder / CARD_FILE).write_text(text, encoding="utf-8", newline="\n")


def read_card(folder: Path) -> str:
    """Return the text of the model card in `folder`. Empty if there is none, or if it is too large to
    read.
    """
    try:
        data = read_regular(folder / CARD_FILE, _MAX_CARD_BYTES + 1)
    except OSError:
        return ""
    return data.decode("utf-8", "replace") if len(data) <= _MAX_CARD_BYTES else ""


def card_language(folder: Path) -> str | None:
    """Return the language in the front matter of the model card in `folder`. None if there is none."""
    found = re.search(r"^language:\n- ([A-Za-z]{2,3})$", read_card(folder)[:_FRONT], re.MULTILINE)
    return found[1] if found else None


def card(adapter: Adapter, base_model: str, manifest: Mapping[str, Any]) -> str:
    """Return a new model card's text: front matter as PEFT's save_pretrained writes it, then the manifest's
    fields as a table.
    """
    front: dict[str, Any] = {
        "base_model": base_model,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
    }
    if adapter.language is not None:
        front["language"] = [adapter.language]
    front["tags"] = [f"base_model:adapter:{base_model}", "lora", "oneseek", "transformers"]
    rows = "".join(
        f"| {name} | {_cell(manifest[name])} |\n"
        for name in ("language", "base", "base_digest", "digest", "rank", "alpha", "targets", *_MADE)
        if name in manifest
    )
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n"
        f"# {adapter.alias} {adapter.version}\n\n"
        f"A LoRA in PEFT layout, for the base `{base_model}`. The same is in `oneseek.json`.\n\n"
        f"| | |\n|---|---|\n{rows}"
    )


_MADE = ("dataset", "dataset_digest", "rows", "metrics", "parents", "created")


def _cell(value: object) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        text = ", ".join(value)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _public(recorded: object, otherwise: str) -> str:
    """Return the base's name as the adapter records it, unless that is a path on its author's machine."""
    if not isinstance(recorded, str) or not recorded or recorded.count("/") > 1:
        return otherwise
    return otherwise if recorded[0] in "/.~" or "\\" in recorded or ":" in recorded else recorded


def _says_something(path: Path) -> bool:
    try:
        data = read_regular(path, _MAX_CARD_BYTES + 1)
        if len(data) > _MAX_CARD_BYTES:
            return False
        text = data.decode()
    except (OSError, UnicodeDecodeError):
        return False
    return text.startswith("---\n") and "library_name: peft\n" in text and _PLACEHOLDER not in text
