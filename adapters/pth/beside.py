"""Read what the files beside a pickle say about its adapter.

PEFT saves adapter_config.json beside its weights, whatever their format. That file decides what the adapter
computes (`PeftModel.from_pretrained`). An existing installation has a .json about the training instead.
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
"""Fields of a oneseek.json that describe the original weights, not the converted ones."""
_MARKS = ("peft_type", "lora_alpha", "target_modules")
"""Fields that identify a LoRA's settings; `bias` or `r` alone may be a metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The files that belong to one pickle, in the same folder."""

    said: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The contents of the .json about the adapter's training. Empty if there is none."""
    peft: Mapping[str, Any] | None = None
    """The fields of adapter_config.json for a plain LoRA, in the file's order. None if there is no
    such file.
    """
    manifest: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The fields of oneseek.json, if adapter_config.json is there too."""

    @classmethod
    def read(cls, file: Path) -> Beside:
        """Read the files. Raises `AdapterError` if one cannot be read, or describes more than a plain
        LoRA.
        """
        said, folder = read_notes(file), file.parent
        if not (folder / CONFIG_FILE).is_file():
            return cls(said=said)
        LoraConfig.read(folder)
        peft = read_object(folder / CONFIG_FILE, MAX_CONFIG_BYTES, AdapterError)
        return cls(said=said, peft=peft, manifest=read_fields(folder))

    def name(self, file: Path) -> names.FolderName:
        """The names in oneseek.json, else the file's name. The language may also come from the .json."""
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
        """True if the version in `name` was stated, rather than a default."""
        return self._recorded("version") is not None or names.tells_version(name_of(file))

    def manifest_to_keep(self) -> dict[str, Any]:
        """The fields of oneseek.json that stay true for the converted adapter."""
        return {key: value for key, value in self.manifest.items() if key not in _OF_THE_WEIGHTS}

    def _recorded(self, name: str) -> str | None:
        found: object = self.manifest.get(name)
        return found if isinstance(found, str) else None


def refuse_variants_in(path: Path, documents: Sequence[Mapping[str, Any]]) -> None:
    """Raise `AdapterError` if LoRA settings anywhere in `documents` need more than a plain LoRA."""
    for document in documents:
        for fields in mappings(document):
            if any(mark in fields for mark in _MARKS):
                refuse_known_variants(path, fields)


def mappings(document: Mapping[str, Any], depth: int = 3) -> Iterator[Mapping[str, Any]]:
    """Yield `document` and the objects in it, the outermost first, `depth` levels down."""
    waiting = deque([(document, 0)])
    while waiting:
        fields, level = waiting.popleft()
        yield fields
        if level < depth:
            waiting.extend((value, level + 1) for value in fields.values() if isinstance(value, dict))


def values(documents: Sequence[Mapping[str, Any]], *wanted: str) -> Iterator[object]:
    """Yield the values of fields whose name is in `wanted`: earlier documents first, then outermost objects
    first.
    """
    for document in documents:
        for fields in mappings(document):
            yield from (fields[name] for name in wanted if fields.get(name) is not None)
