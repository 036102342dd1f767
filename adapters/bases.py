"""Find the base model to serve: the configured one, else one in a known folder, else the mini base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters import names
from adapters.errors import BaseModelError
from adapters.files.jsonfile import read_object
from adapters.files.tokenizerfile import tokenizer_file
from adapters.files.weightfiles import MAX_BASE_JSON_BYTES, find_checkpoint

SHIPPED = Path(__file__).parent / "mini" / "weights"
"""Folder of the mini base that ships with OneSeek: the base is in `base`, its adapters in folders
beside it.
"""
BASES = (
    ("models/oneseek-7b-zero", "oneseek-7b-zero-base"),
    ("models/oneseek-7b-zero/base_models/mistral-7b", "mistral-7b"),
    ("models/oneseek-7b-zero/base_models/llama-2-7b", "llama-2-7b"),
    ("models/mistral-7b-instruct", "mistral-7b-instruct"),
    ("models/llama-2-7b-chat", "llama-2-7b-chat"),
)
"""Known folders of bases under the installation's root, each with the base's public name. The first folder
that holds weights is used.
"""
MINI_BASE = "oneseek-mini"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""Files of a base's folder that may hold its tokenizer or chat template."""
_NAME_IT = "Name the base's folder with --base-model PATH."


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBase:
    """A base model that was found: its folder has config.json, a tokenizer and safetensors weights."""

    path: Path
    name: str
    """Public name of the base, such as `mistral-7b-instruct`."""
    reason: str
    """Why this base was chosen, for the log."""

    shipped: bool
    """True if this base is the mini base that comes with OneSeek."""
    warning: str | None = None
    """Warning if the folder holds other weight files that could be taken for the base; None otherwise."""


def find_base(root: Path, explicit: Path | None = None, *, shipped: Path = SHIPPED) -> FoundBase:
    """Find the base to serve: `explicit` if given, else the first known folder (`BASES`) under `root` that
    has weights, else the mini base.

    Raises `BaseModelError` if the chosen base cannot be served; the message says what is missing and what to
    do. No other base is tried then. Whether the base's architecture is supported is checked later, by the
    engine.
    """
    if explicit is not None:
        mini = explicit.resolve() == (shipped / "base").resolve()
        name = MINI_BASE if mini else names.from_folder(names.folder_title(explicit.resolve())) or "base"
        return _check(explicit, name, "named in the settings", shipped=mini)
    empty: list[str] = []
    for place, name in BASES:
        folder = root / place
        if not (folder / "config.json").is_file():
            continue
        if not is_inside(folder, root):
            raise BaseModelError(
                folder,
                f"the base's folder is a link that leads outside {root}, so it must be named",
                f"To serve this base, name it: --base-model {folder}",
            )
        if not any(folder.glob("*.safetensors")) and _pickle(folder) is None:
            empty.append(place)
            continue
        return _check(folder, name, f"found in {place}{_format_passed_over(empty)}")
    reason = f"no other base under {root}{_format_passed_over(empty)}"
    return _check(shipped / "base", MINI_BASE, f"the mini base: {reason}", shipped=True)


def is_inside(path: Path, root: Path) -> bool:
    """True if `path` is `root` or lies below it, after all symbolic links are resolved."""
    try:
        return path.resolve(strict=True).is_relative_to(root.resolve(strict=True))
    except (OSError, RuntimeError):
        return False


def _check(folder: Path, name: str, reason: str, *, shipped: bool = False) -> FoundBase:
    if not folder.is_dir():
        raise BaseModelError(
            folder, "the base's path is not a folder", "Name the folder that holds the base's config.json."
        )
    if not (folder / "config.json").is_file():
        raise BaseModelError(folder / "config.json", "the base's config file does not exist", _where(folder))
    read_object(folder / "config.json", MAX_BASE_JSON_BYTES, BaseModelError)
    pickle = _pickle(folder)
    if pickle is not None and not any(path.name.startswith("model") for path in folder.glob("*.safetensors")):
        convert = "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)"
        raise BaseModelError(
            pickle,
            "the base's weight file is a pickle, which can run code, so OneSeek does not load it",
            f"If you trust the file, convert it once with transformers: {convert}.",
        )
    warning = find_checkpoint(folder).warning
    if tokenizer_file(folder) is None:
        raise BaseModelError(
            folder / "tokenizer.json",
            "the base's tokenizer file does not exist",
            "Save it with transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder).",
        )
    return FoundBase(path=folder, name=name, reason=reason, shipped=shipped, warning=warning)


def _where(folder: Path) -> str:
    """Return the advice for a base's folder that has no config.json: which folder to name instead."""
    if (folder / "adapter_config.json").is_file():
        return (
            f"The folder holds an adapter: name the adapter with --adapters {folder}, "
            "and its base with --base-model PATH."
        )
    found = sorted(folder.glob("*/config.json")) or sorted(folder.glob("*/*/config.json"))
    return f"Name the subfolder with the base: --base-model {found[0].parent}" if found else _NAME_IT


def _pickle(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("pytorch_model*.bin"))), None)


def _format_passed_over(empty: Sequence[str]) -> str:
    return f" ({', '.join(empty)} skipped: no weights in it)" if empty else ""
