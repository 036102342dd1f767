"""Read the files next to a pickle for the settings of its adapter.

PEFT saves adapter_config.json next to its weights in any format. If that file exists, it decides what the
adapter computes, as in `PeftModel.from_pretrained`. An older OneSeek installation has a .json file about the
training instead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters import names
from adapters.errors import AdapterError
from adapters.files.jsonfile import read_object
from adapters.lora.config import CONFIG_FILE, MAX_CONFIG_BYTES, LoraConfig
from adapters.lora.manifest import read_fields
from adapters.lora.unsupported import refuse_known_variants
from adapters.pickles import name_of, read_notes, told_language

_OF_THE_WEIGHTS = ("digest", "rank", "alpha", "targets")
"""Fields of oneseek.json that describe the original weights and do not apply to the converted ones."""
_MARKS = ("peft_type", "lora_alpha", "target_modules")
"""Fields that show that a JSON object holds LoRA settings. `bias` or `r` alone may be a training metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The contents of the files that lie next to a pickle and describe its adapter."""

    said: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Contents of the .json file about the adapter's training. Empty if there is no such file."""
    peft: Mapping[str, Any] | None = None
    """The fields of adapter_config.json, in the file's order. None if there is no such file."""
    manifest: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The fields of oneseek.json. Empty if that file or adapter_config.json is missing."""

    @classmethod
    def read(cls, file: Path) -> Beside:
        """Read the files that lie next to the pickle `file`. Raises `AdapterError` if a file cannot be read,
        or if its settings need more than a plain LoRA.
        """
        said, folder = read_notes(file), file.parent
        if not (folder / CONFIG_FILE).is_file():
            return cls(said=said)
        LoraConfig.read(folder)
        peft = read_object(folder / CONFIG_FILE, MAX_CONFIG_BYTES, AdapterError)
        return cls(said=said, peft=peft, manifest=read_fields(folder))

    def name(self, file: Path) -> names.FolderName:
        """Return the adapter's alias, version and language: from oneseek.json, or else from the name of
        `file`. The .json file about the training may also give the language.
        """
        try:
            told = names.FolderName.read(name_of(file))
        except ValueError:
            told = names.FolderName("imported", "v1", None)
        return names.FolderName(
            self._recorded("alias") or told.alias,
            self._recorded("version") or told.version,
            self._recorded("language") or told.language or told_language(file),
        )

    def tells_version(self, file: Path) -> bool:
        """True if oneseek.json or the file's name states a version. Otherwise the version in `name` is only a
        default.
        """
        return self._recorded("version") is not None or names.tells_version(name_of(file))

    def manifest_to_keep(self) -> dict[str, Any]:
        """Return the fields of oneseek.json that also apply to the converted adapter."""
        return {key: value for key, value in self.manifest.items() if key not in _OF_THE_WEIGHTS}

    def _recorded(self, name: str) -> str | None:
        found: object = self.manifest.get(name)
        return found if isinstance(found, str) else None


def refuse_variants_in(path: Path, documents: Sequence[Mapping[str, Any]]) -> None:
    """Raise `AdapterError` for the adapter at `path` if LoRA settings anywhere in `documents` ask for a LoRA
    variant, such as DoRA, that OneSeek does not support.
    """
    for document in documents:
        for fields in mappings(document):
            if any(mark in fields for mark in _MARKS):
                refuse_known_variants(path, fields)


def mappings(document: Mapping[str, Any], depth: int = 3) -> Iterator[Mapping[str, Any]]:
    """Yield `document` and the JSON objects inside it, down to `depth` levels, outer objects before inner
    ones.
    """
    waiting = deque([(document, 0)])
    while waiting:
        fields, level = waiting.popleft()
        yield fields
        if level < depth:
            waiting.extend((value, level + 1) for value in fields.values() if isinstance(value, dict))


def values(documents: Sequence[Mapping[str, Any]], *wanted: str) -> Iterator[object]:
    """Yield the value of every field named in `wanted`. Values of earlier documents come first, and those of
    outer objects before inner ones.
    """
    for document in documents:
        for fields in mappings(document):
            yield from (fields[name] for name in wanted if fields.get(name) is not None)
