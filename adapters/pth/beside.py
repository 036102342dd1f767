"""What the files beside a pickle say of the adapter in it.

PEFT saves adapter_config.json beside its weights, whatever their format, and what it says is what the adapter
computes (`PeftModel.from_pretrained`). An existing installation keeps a .json of the training instead.
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
"""Fields of a oneseek.json that were written for other files than those of the conversion."""
_MARKS = ("peft_type", "lora_alpha", "target_modules")
"""One of them makes an object a LoRA's settings; `bias` or `r` alone may be a metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The files beside one pickle."""

    said: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The .json of its training."""
    peft: Mapping[str, Any] | None = None
    """The fields of adapter_config.json, in the file's order; a plain LoRA's."""
    manifest: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The fields of oneseek.json, if adapter_config.json is there too."""

    @classmethod
    def read(cls, file: Path) -> Beside:
        """Raises `AdapterError` for a file that cannot be read, or describes more than a plain LoRA."""
        said, folder = read_notes(file), file.parent
        if not (folder / CONFIG_FILE).is_file():
            return cls(said=said)
        LoraConfig.read(folder)
        peft = read_object(folder / CONFIG_FILE, MAX_CONFIG_BYTES, AdapterError)
        return cls(said=said, peft=peft, manifest=read_fields(folder))

    def name(self, file: Path) -> names.FolderName:
        """The names that oneseek.json tells, else the file's name; the language also from the .json."""
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
        """Whether the version in `name` is more than a default."""
        return self._recorded("version") is not None or names.tells_version(name_of(file))

    def manifest_to_keep(self) -> dict[str, Any]:
        """The fields of oneseek.json that hold for the converted adapter too."""
        return {key: value for key, value in self.manifest.items() if key not in _OF_THE_WEIGHTS}

    def _recorded(self, name: str) -> str | None:
        found: object = self.manifest.get(name)
        return found if isinstance(found, str) else None


def refuse_variants_in(path: Path, documents: Sequence[Mapping[str, Any]]) -> None:
    """Raise `AdapterError` if settings of a LoRA anywhere in `documents` ask for more than a plain one."""
    for document in documents:
        for fields in mappings(document):
            if any(mark in fields for mark in _MARKS):
                refuse_known_variants(path, fields)


def mappings(document: Mapping[str, Any], depth: int = 3) -> Iterator[Mapping[str, Any]]:
    """`document` and the objects in it, the outermost first, `depth` levels down."""
    waiting = deque([(document, 0)])
    while waiting:
        fields, level = waiting.popleft()
        yield fields
        if level < depth:
            waiting.extend((value, level + 1) for value in fields.values() if isinstance(value, dict))


def values(documents: Sequence[Mapping[str, Any]], *wanted: str) -> Iterator[object]:
    """The values of fields called one of `wanted`, the outermost first, earlier documents first."""
    for document in documents:
        for fields in mappings(document):
            yield from (fields[name] for name in wanted if fields.get(name) is not None)
