"""Records of versions outside the registry, so that it can find them again or report them as missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from adapters import names
from adapters.lora.manifest import PLACES, Adapter, AdapterPlace


@dataclass(frozen=True, slots=True)
class FolderRecord:
    """A version outside the registry: in a folder of the user, or in a folder that ships with OneSeek."""

    alias: str
    version: str
    place: AdapterPlace
    path: Path
    """Absolute path of the folder with the version."""
    base: str | None
    """Digest of the base that the version was served on. None if unknown."""
    language: str | None = None

    @classmethod
    def of(cls, adapter: Adapter, base: str) -> FolderRecord:
        """Make a record of `adapter`, which is served on the base with the digest `base`."""
        path = adapter.path.absolute()
        return cls(adapter.alias, adapter.version, adapter.place, path, base, adapter.language)

    @classmethod
    def from_json(cls, value: Any) -> FolderRecord:
        """Read a record that `to_json` wrote. If it is damaged, raises `ValueError`, `KeyError`, `TypeError`
        or `AttributeError`.
        """
        place, path, base, language = value["place"], value["path"], value.get("base"), value.get("language")
        if place not in PLACES or place == "registry" or not Path(path).is_absolute():
            raise ValueError(
                "the record of an adapter's folder is damaged and is not read: "
                "it needs an absolute path outside the registry"
            )
        if base is not None and not isinstance(base, str):
            raise ValueError(
                "the record of an adapter's folder is damaged and is not read: the base's digest is not text"
            )
        alias, version = names.alias(value["alias"]), names.version(value["version"])
        spoken = names.language(language) if language is not None else None
        return cls(alias, version, cast("AdapterPlace", place), Path(path), base, spoken)

    @property
    def root(self) -> Path:
        """Folder that links in the version's folder must stay in."""
        return self.path if self.place == "settings" else self.path.parent

    def fits(self, base: str | None) -> bool:
        """True if the version can be for the base with the digest `base`. None as `base` matches any
        version.
        """
        return base is None or self.base in (None, base)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON."""
        found: Mapping[str, Any] = {
            "alias": self.alias,
            "version": self.version,
            "place": self.place,
            "path": str(self.path),
            "base": self.base,
            "language": self.language,
        }
        return {name: value for name, value in found.items() if value is not None}


def read_folders(value: Any) -> dict[str, FolderRecord]:
    """Read the records of versions outside the registry from JSON. Returns a map from each version in lower
    case to its record. Raises the errors of `FolderRecord.from_json`.
    """
    if value is None:
        return {}
    found = [FolderRecord.from_json(record) for record in value.values()]
    return {record.version.lower(): record for record in found}
