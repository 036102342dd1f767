"""GPT-SW3's tokenizer: normalisation before SentencePiece, special tokens, and the chat template.

Follows transformers' `GPTSw3Tokenizer`, which has no fast version, and the model cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, normalizers

from adapters.errors import BaseModelError
from adapters.files.jsonfile import read_object
from adapters.files.tokenizerfile import SPIECE_FILE, TOKENIZER_FILE, tokenizer_file
from adapters.files.weightfiles import MAX_BASE_JSON_BYTES
from adapters.spiece.definition import build_tokenizer
from adapters.spiece.model import SpieceModel

CHAT_TEMPLATE = (
    "{{ eos_token }}{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'user' %}User: {% elif message.role == 'assistant' %}Bot: {% endif %}"
    "{{ message.content }}{{ bos_token }}{% endfor %}{% if add_generation_prompt %}Bot:{% endif %}"
)
"""Chat template of the instruct models, from their model cards. Each turn ends with `<s>`."""

_CLASS = "GPTSw3Tokenizer"
_EARLIER = "gpt-sw3-7b"
"""Name of the only GPT-SW3 model whose tokenizer has the earlier default special tokens."""
_NOT_PRINTED = "".join(map(chr, (*range(9), *range(11, 32), *range(127, 161), 0xAD, 0x200B)))
_SPACES = "\u2002\u2003\u2005\u2008\u2009\u200a\u202f\u3000\ufffc"
"""The characters that transformers' `GPTSw3Tokenizer` removes (`_NOT_PRINTED`), and those that it replaces by
a space (`_SPACES`).
"""
_KINDS = ("bos_token", "eos_token", "unk_token", "pad_token")


def is_gpt_sw3(folder: Path) -> bool:
    """True if the base in `folder` has a spiece.model and no tokenizer.json."""
    return tokenizer_file(folder) == folder / SPIECE_FILE


def read_definition(folder: Path) -> str:
    """Return the base's tokenizer as the text of a tokenizer.json: the file itself, or the converted
    spiece.model of a GPT-SW3.

    Raises `BaseModelError` for a spiece.model that cannot be converted, and `OSError`.
    """
    return _convert(folder) if is_gpt_sw3(folder) else (folder / TOKENIZER_FILE).read_text("utf-8")


def special_tokens(folder: Path) -> dict[str, str]:
    """Return `bos_token`, `eos_token` and so on of the base in `folder`: from its files, else the defaults of
    `GPTSw3Tokenizer`.

    Raises `BaseModelError` for a file that is not JSON, or a tokenizer of another class.
    """
    fields = _fields(folder)
    earlier = _EARLIER in str(fields.get("name_or_path"))
    found = {"eos_token": "<|endoftext|>", "unk_token": "<unk>"} | _texts(fields)
    found.setdefault("pad_token", found["unk_token"] if earlier else "<pad>")
    found.setdefault("bos_token", found["eos_token"] if earlier else "<s>")
    return found


def chat_template(folder: Path) -> str:
    """Return the chat template of the GPT-SW3 in `folder`: from its files, else from the model cards."""
    file, said = folder / "chat_template.jinja", _fields(folder).get("chat_template")
    if file.is_file():
        return file.read_text("utf-8")
    return said if isinstance(said, str) else CHAT_TEMPLATE


def _convert(folder: Path) -> str:
    """Convert the spiece.model in `folder` to the text of a tokenizer.json. The result is cached, because
    converting takes up to a second.
    """
    file = folder / SPIECE_FILE
    special = dict.fromkeys([*special_tokens(folder).values(), *_additional(_fields(folder))])
    return _definition(file, file.stat().st_mtime_ns, tuple(special))


@lru_cache(maxsize=2)
def _definition(file: Path, stamp: int, special: tuple[str, ...]) -> str:
    del stamp  # tells a changed file from the one that is kept
    before = [
        normalizers.Replace(Regex(f"[{_NOT_PRINTED}]"), ""),
        normalizers.Replace(Regex(f"[{_SPACES}]"), " "),
        normalizers.NFC(),
    ]
    return build_tokenizer(SpieceModel.read(file), special, before).to_str()


def _fields(folder: Path) -> dict[str, Any]:
    """Return the fields of special_tokens_map.json and tokenizer_config.json in `folder`. If both have a
    field, tokenizer_config.json takes precedence. Raises `BaseModelError` for an unsupported tokenizer.
    """
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            found |= read_object(folder / name, MAX_BASE_JSON_BYTES, BaseModelError)
    path = folder / "tokenizer_config.json"
    kind = found.get("tokenizer_class")
    if kind not in (None, _CLASS):
        raise BaseModelError(
            path,
            f"OneSeek reads spiece.model only for the tokenizer class {_CLASS}",
            "Save the tokenizer as a tokenizer.json: "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder).",
            field="tokenizer_class",
            value=kind,
        )
    if found.get("do_lower_case"):
        raise BaseModelError(
            path,
            "OneSeek does not support this option",
            "Use a tokenizer that keeps case.",
            field="do_lower_case",
            value=True,
        )
    return found


def _texts(fields: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _KINDS:
        match fields.get(name):
            case str(token) | {"content": str(token)}:
                found[name] = token
            case _:
                pass
    return found


def _additional(fields: Mapping[str, Any]) -> list[str]:
    """Return the additional special tokens in the tokenizer's config, besides bos, eos, unk and pad."""
    found: list[str] = []
    for entry in fields.get("additional_special_tokens") or fields.get("extra_special_tokens") or ():
        match entry:
            case str(token) | {"content": str(token)}:
                found.append(token)
            case _:
                pass
    return found
