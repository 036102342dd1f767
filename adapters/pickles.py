"""Recognise adapters stored as pickle files, and suggest the command that converts them. The pickles are
never opened here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters import names
from adapters.errors import AdapterError
from adapters.files.jsonfile import read_object

PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "adapter.pth", "adapter.bin")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth")
_GENERIC = ("adapter", "adapter_model", "pytorch_model", "model", "weights", "lora")
_MAX_NOTES_BYTES = 256 << 10
_LANGUAGES = {"english": "en", "engelska": "en", "swedish": "sv", "svenska": "sv"}
"""Maps names of languages to language codes. The .json files of an older OneSeek installation hold such
names.
"""


def refuse_pickle(folder: Path) -> None:
    """Raise `AdapterError`, with the command that converts the file, if `folder` contains or is a pickle
    file.
    """
    found = [path for path in (folder, *(folder / name for name in PICKLES)) if path.is_file()]
    pickle = next((path for path in found if path.suffix.lower() in PICKLE_SUFFIXES), None)
    if pickle is not None:
        raise AdapterError(
            pickle,
            "the file is a pickle, which can run code when it is read, so the server never reads it",
            f"Convert the file: {import_command(pickle)}",
        )


def import_command(file: Path) -> str:
    """Return the command that converts the pickle `file`, with `--language` if the file's name or .json file
    states a language. An adapter without a language is never chosen by language.
    """
    text, language = str(file), told_language(file)
    named = f'"{text}"' if " " in text else text
    return f"oneseek adapters import {named}" + (f" --language {language}" if language else "")


def told_language(file: Path) -> str | None:
    """Return the code of the language, such as sv, that the pickle's name or the .json file beside it states.
    None if neither states a language.
    """
    try:
        if (told := names.FolderName.read(name_of(file)).language) is not None:
            return told
    except ValueError:
        pass
    try:
        said: object = read_notes(file).get("language")
    except AdapterError:
        return None
    if not isinstance(said, str):
        return None
    word = said.strip().lower()
    match = re.fullmatch(r"([a-z]{2,3})(?:[-_][a-z0-9]{2,8})*", word)
    return _LANGUAGES.get(word) or (match[1] if match else None)


def name_of(file: Path) -> str:
    """Return the name of the pickle's adapter: the file's stem, or the folder's name if the stem is generic,
    such as `adapter_model`.
    """
    return names.folder_title(file.absolute().parent) if file.stem.lower() in _GENERIC else file.stem


def read_notes(file: Path) -> Mapping[str, Any]:
    """Read the .json file beside the pickle `file`; empty if there is none. Raises `AdapterError` if it is
    damaged.
    """
    beside = file.with_suffix(".json")
    return read_object(beside, _MAX_NOTES_BYTES, AdapterError) if beside.is_file() else {}
