"""What is known of one adapter version: names and digests from `oneseek.json` beside the PEFT files.

Reads the header of the weights and hashes their bytes; the numbers are read by `adapters.lora.weights`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from adapters import names
from adapters.errors import AdapterError
from adapters.files.hashes import HashCache
from adapters.files.jsonfile import read_object
from adapters.lora.config import CONFIG_FILE, LoraConfig
from adapters.lora.digest import MAX_ADAPTER_BYTES, adapter_digest, known_digest
from adapters.lora.families import Key, LoraFamily, family_of_tensors
from adapters.lora.shape_check import MAX_RANK, ModelShape, check_layout, fitting
from adapters.lora.tensorfile import TensorFile, halves
from adapters.pickles import refuse_pickle

MANIFEST_FILE = "oneseek.json"
ORIGIN = "origin"
"""Field of `oneseek.json` that says which file of an existing installation it was converted from."""
READ_FIELDS = ("alias", "version", "language", "digest", "base_digest")
"""Fields of `oneseek.json` that OneSeek goes by, each optional."""
NOTED_FIELDS = (
    "about",
    "alpha",
    "base",
    "created",
    "dataset",
    "dataset_digest",
    "metrics",
    ORIGIN,
    "parents",
    "rank",
    "rows",
    "targets",
)
"""Fields that say how the adapter was made, for people and tools; `about` holds anything else."""

AdapterPlace = Literal["settings", "registry", "lora_adapters", "shipped", "loaded"]
"""Where an adapter was found: named by the settings, in the registry, in a folder, or loaded over HTTP."""
PLACES: tuple[AdapterPlace, ...] = get_args(AdapterPlace)
"""In the order in which they decide what an alias stands for that was never promoted."""
_MAX_MANIFEST_BYTES = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One immutable version of a LoRA in PEFT layout, bound to one base."""

    alias: str
    """Public name, such as `oneseek-7b-zero-sv`."""
    version: str
    """Such as `v1.1`."""
    digest: str
    """`sha256:` and 64 hex digits over the canonical files; the identity below the HTTP surface.

    Empty if there is a `problem`: what is recorded of a damaged version is no proof of what it holds.
    """
    path: Path
    """Folder with `adapter_config.json` and `adapter_model.safetensors`."""
    rank: int
    alpha: float
    targets: tuple[str, ...]
    """Target modules, sorted, such as `("q_proj", "v_proj")`."""
    language: str | None = None
    """ISO 639-1 code that routing maps to this adapter's alias."""
    base_digest: str | None = None
    """The base it was made for; None where its maker did not record one."""
    problem: str | None = None
    """Why a version that was accepted cannot be served any more, naming no folder; None: it can be."""
    imported: bool = field(default=False, compare=False)
    """Whether it was converted from a file of an existing installation."""
    place: AdapterPlace = field(default="settings", compare=False)
    """Where it was found."""
    full_name: str = field(init=False, repr=False, compare=False)
    """`alias@version`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "full_name", f"{self.alias}@{self.version}")


def damaged_adapter(
    folder: Path,
    alias: str,
    version: str,
    problem: str,
    language: str | None = None,
    *,
    imported: bool = False,
    place: AdapterPlace = "registry",
) -> Adapter:
    """The version in `folder`, which was accepted once and cannot be served because of `problem`."""
    return Adapter(
        alias=alias,
        version=version,
        digest="",
        path=folder,
        rank=0,
        alpha=0.0,
        targets=(),
        language=language,
        problem=problem,
        imported=imported,
        place=place,
    )


def read_manifest(
    folder: Path,
    *,
    alias: str | None = None,
    version: str | None = None,
    language: str | None = None,
    hashes: HashCache | None = None,
    shape: ModelShape | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Adapter:
    """The adapter in `folder`, its digest computed from its files; with `shape`, it has to fit such a base.

    `fields` are those of `oneseek.json`, for who has read them already.

    With `hashes`, weights are hashed only if neither these nor `oneseek.json` know their hash; what
    `oneseek.json` says is then not verified before the weights are read.

    What is passed goes before `oneseek.json`, and that before the folder's name. Raises `AdapterError` where
    the files are no plain LoRA in PEFT layout, a recorded name is not one, or a recorded digest is not that
    of the files; `ValueError` where a name that is passed is not one.
    """
    if not (folder / CONFIG_FILE).exists():
        refuse_pickle(folder)
    config = LoraConfig.read(folder)
    family, modules = _modules(folder, config, shape)
    path = folder / MANIFEST_FILE
    fields = read_fields(folder) if fields is None else fields
    recorded = _read(path, fields, "digest", _digest)
    if hashes is None:
        digest = adapter_digest(folder)
    else:
        digest = known_digest(folder, config, hashes) or recorded or adapter_digest(folder, hashes)
    if recorded is not None and recorded != digest:
        reason = f"the files beside it have {digest}: they were changed after it was written"
        remedy = "Restore the files, or import them as a new version."
        raise AdapterError(path, reason, remedy, field="digest", value=recorded)
    named = _names(folder, fields, alias, version, language)
    return Adapter(
        alias=named.alias,
        version=named.version,
        language=named.language,
        digest=digest,
        path=folder,
        rank=max(config.rank_of(family.module_name(*module)) for module in modules),
        alpha=config.alpha,
        targets=tuple(sorted({module for _, module in modules})),
        base_digest=read_base_digest(folder, fields),
        imported=ORIGIN in fields,
    )


def _modules(folder: Path, config: LoraConfig, shape: ModelShape | None) -> tuple[LoraFamily, Sequence[Key]]:
    """What the adapter changes, in order, by the names of the family whose base it is for."""
    if shape is not None:
        with TensorFile.open(folder, shape.largest_adapter(MAX_RANK)) as file:
            return shape.family, sorted(fitting(config, file, shape, MAX_RANK))
    with TensorFile.open(folder, MAX_ADAPTER_BYTES) as file:
        family = family_of_tensors(tensor.name for tensor in file.tensors)
        modules = sorted(halves(file, family))
    check_layout(config, family, modules)
    return family, modules


def read_base_digest(folder: Path, fields: Mapping[str, Any]) -> str | None:
    """The digest of the base that the `fields` of the manifest in `folder` name. Raises `AdapterError`."""
    return _read(folder / MANIFEST_FILE, fields, "base_digest", _digest)


def read_fields(folder: Path) -> dict[str, Any]:
    """The fields of `oneseek.json` in `folder`, none where it is absent; `AdapterError` for unknown ones."""
    path = folder / MANIFEST_FILE
    if not os.path.lexists(path):
        return {}
    fields = read_object(path, _MAX_MANIFEST_BYTES, AdapterError)
    known = (*READ_FIELDS, *NOTED_FIELDS)
    for name, value in fields.items():
        if name not in known:
            remedy = f"Known are {', '.join(known)}; notes of your own go under about."
            raise AdapterError(path, "the field is unknown", remedy, field=name[:64], value=value)
    return fields


def _names(
    folder: Path, fields: Mapping[str, Any], alias: str | None, version: str | None, language: str | None
) -> names.FolderName:
    """The names that were passed, else recorded, else told by the folder's name."""
    path = folder / MANIFEST_FILE
    alias = names.alias(alias) if alias else _read(path, fields, "alias", names.alias)
    version = names.version(version) if version else _read(path, fields, "version", names.version)
    language = names.language(language) if language else _read(path, fields, "language", names.language)
    if alias and version:
        return names.FolderName(alias, version, language)
    try:
        told = names.FolderName.read(names.folder_title(folder.resolve()))
    except ValueError as problem:
        if alias:
            return names.FolderName(alias, version or "v1", language)
        remedy = "Name it where you list it, as NAME=PATH, or in oneseek.json."
        raise AdapterError(folder, f"its name gives no alias ({problem})", remedy) from problem
    return names.FolderName(alias or told.alias, version or told.version, language or told.language)


def _read(path: Path, fields: Mapping[str, Any], field: str, check: Callable[[str], str]) -> str | None:
    value = fields.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise AdapterError(path, "is not text", "Correct the field.", field=field, value=value)
    try:
        return check(value)
    except ValueError as problem:
        raise AdapterError(path, str(problem), "Correct the field.", field=field, value=value) from problem


def _digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ValueError("a digest is sha256: and 64 hex digits")
    return text
