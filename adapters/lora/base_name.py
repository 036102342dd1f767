"""Compare the name of the base in an adapter's config with the base that is served. Used only if the adapter
records no digest of its base.

A name proves nothing: folders are renamed, and hubs have copies. So only a clear contradiction is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError, FileRefusedError
from adapters.files.jsonfile import read_object
from adapters.lora.config import CONFIG_FILE, MAX_CONFIG_BYTES

FIELD = "base_model_name_or_path"
_FAMILIES = {
    "llama": re.compile(r"llama"),
    "mistral": re.compile(r"mi(?:ni)?stral"),
    "mixtral": re.compile(r"mixtral"),
    "qwen": re.compile(r"qwen"),
    "gemma": re.compile(r"gemma"),
    "gpt-2": re.compile(r"gpt[-_]?(?:2|sw3)(?![0-9])"),
    "phi": re.compile(r"(?<![a-z])phi(?![a-z])"),
}
"""Maps each family to the pattern of its bases' names. Families whose bases have no common name are left
out.
"""
_MAX_BASE_CONFIG_BYTES = 4 << 20


def base_names(base: Path, public_name: str) -> tuple[str, ...]:
    """Return the names of the base in the folder `base`: its public name, the folder's name, and the names in
    its config.json.
    """
    try:
        config = read_object(base / "config.json", _MAX_BASE_CONFIG_BYTES, FileRefusedError)
    except FileRefusedError:
        config = dict[str, Any]()
    told = (config.get("_name_or_path"), config.get("model_type"))
    return (public_name, base.resolve().name, *(name for name in told if isinstance(name, str)))


def check_base_name(folder: Path, known: Iterable[str]) -> None:
    """Raise `AdapterError` if adapter_config.json in `folder` names a base of another family than the base
    with the names `known`.
    """
    path = folder / CONFIG_FILE
    recorded: object = read_object(path, MAX_CONFIG_BYTES, AdapterError).get(FIELD)
    if not isinstance(recorded, str) or not recorded:
        return
    named, here = _families([recorded]), _families(known)
    if not named or not here or named & here:
        return
    found, base = " or ".join(sorted(named)), " or ".join(sorted(here))
    raise AdapterError(
        path,
        f"the adapter was made for a {found} base, but the base served here is {base}",
        "Serve the adapter on its own base. If the recorded name is wrong, correct it.",
        field=FIELD,
        value=recorded,
    )


def _families(names: Iterable[str]) -> set[str]:
    ends = [re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower() for name in names]
    return {family for family, word in _FAMILIES.items() if any(word.search(end) for end in ends)}
