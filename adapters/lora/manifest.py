"""Read an adapter version's names and digests from `oneseek.json`, the manifest beside the PEFT files.

This module reads only the header of the weights and hashes their bytes. `adapters.lora.weights` reads the
numbers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

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
"""Field of `oneseek.json` that records which file of an earlier OneSeek installation was converted to the
adapter.
"""
READ_FIELDS = ("alias", "version", "language", "digest", "base_digest", "examples")
"""Fields of `oneseek.json` that OneSeek uses. Each is optional."""
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
"""Fields of `oneseek.json` that describe how the adapter was made, for people and tools. The field `about`
holds everything that has no field of its own.
"""

AdapterPlace = Literal["settings", "registry", "lora_adapters", "shipped", "loaded"]
"""Where an adapter was found: named in the settings, in the registry, in a folder, or loaded over HTTP."""
PLACES: tuple[AdapterPlace, ...] = get_args(AdapterPlace)
"""Places where adapters are found, in order of precedence. If no version of an alias was promoted, the active
version comes from the first place that has a version.
"""
MOST_EXAMPLES, LONGEST_EXAMPLE = 500, 500
"""Maximum number of an adapter's example questions, and maximum number of characters of a question."""
_MAX_MANIFEST_BYTES = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One immutable version of a LoRA adapter in PEFT layout, made for one base."""

    alias: str
    """Public name that clients use for the adapter, such as `oneseek-7b-zero-sv`."""
    version: str
    """The adapter's version, such as `v1.1`."""
    digest: str
    """`sha256:` and 64 hex digits over the adapter's files. The code below the HTTP API identifies the
    adapter by it.

    Empty if the version has a `problem`: a damaged version's recorded digest proves nothing.
    """
    path: Path
    """Folder with `adapter_config.json` and `adapter_model.safetensors`."""
    rank: int
    alpha: float
    targets: tuple[str, ...]
    """Target modules, sorted, such as `("q_proj", "v_proj")`."""
    language: str | None = None
    """ISO 639-1 code of a language. Requests in this language can be routed to the adapter's alias."""
    base_digest: str | None = None
    """Digest of the base that the adapter was made for. None if the adapter does not record it."""
    problem: str | None = None
    """Why a version that was accepted earlier can no longer be served, without naming a folder. None if it
    can be served.
    """
    imported: bool = field(default=False, compare=False)
    """True if the adapter was converted from a file of an earlier OneSeek installation."""
    place: AdapterPlace = field(default="settings", compare=False)
    """The place where the adapter was found, such as the registry or a folder."""
    examples: tuple[str, ...] = field(default=(), compare=False)
    """Example questions on the adapter's topic, which routing compares requests with. The digest does not
    cover them.
    """
    full_name: str = field(init=False, repr=False, compare=False)
    """Full name of the adapter: `alias@version`."""

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
    """Return the description of a version that was accepted earlier, but cannot be served because of
    `problem`.
    """
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
    """Read the adapter in `folder`, and compute its digest from its files. With `shape`, the sizes of a base,
    check that the adapter fits that base.

    `fields` are those of `oneseek.json`, if they were read already.

    With `hashes`, weights are hashed only if neither `hashes` nor `oneseek.json` has their hash. The digest
    in `oneseek.json` is then not verified before the weights are loaded.

    Names in the arguments take precedence over those in `oneseek.json`, and these over the folder's name.
    Raises `AdapterError` if the files are not a plain LoRA in PEFT layout, a recorded name is invalid, or a
    recorded digest does not match the files. Raises `ValueError` if a name in the arguments is invalid.
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
        examples=_examples(path, fields),
    )


def _modules(folder: Path, config: LoraConfig, shape: ModelShape | None) -> tuple[LoraFamily, Sequence[Key]]:
    """Return the family of the adapter's base, and the modules that the adapter updates, in order."""
    if shape is not None:
        with TensorFile.open(folder, shape.largest_adapter(MAX_RANK)) as file:
            return shape.family, sorted(fitting(config, file, shape, MAX_RANK))
    with TensorFile.open(folder, MAX_ADAPTER_BYTES) as file:
        family = family_of_tensors(tensor.name for tensor in file.tensors)
        modules = sorted(halves(file, family))
    check_layout(config, family, modules)
    return family, modules


def read_base_digest(folder: Path, fields: Mapping[str, Any]) -> str | None:
    """Return the digest of the adapter's base, as `fields` of oneseek.json record it. Raises `AdapterError`
    if it is invalid.
    """
    return _read(folder / MANIFEST_FILE, fields, "base_digest", _digest)


def read_fields(folder: Path) -> dict[str, Any]:
    """Return the fields of `oneseek.json` in `folder`. Empty if the file is missing. Raises `AdapterError`
    for unknown fields.
    """
    path = folder / MANIFEST_FILE
    if not os.path.lexists(path):
        return {}
    fields = read_object(path, _MAX_MANIFEST_BYTES, AdapterError)
    known = (*READ_FIELDS, *NOTED_FIELDS)
    for name, value in fields.items():
        if name not in known:
            remedy = f"Use {', '.join(known)}; put your own notes under about."
            raise AdapterError(path, "the field is unknown to OneSeek", remedy, field=name[:64], value=value)
    return fields


def _examples(path: Path, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the example questions in the manifest's `fields`. Raises `AdapterError` if they are not a list
    of short texts.
    """
    given = fields.get("examples")
    if given is None:
        return ()
    remedy = f"Give a list of up to {MOST_EXAMPLES} questions of up to {LONGEST_EXAMPLE} characters."
    if not isinstance(given, list) or not given:
        raise AdapterError(
            path, "the field must be a list of example questions", remedy, field="examples", value=given
        )
    questions = cast("list[object]", given)
    if len(questions) > MOST_EXAMPLES:
        raise AdapterError(
            path,
            f"the field holds {len(questions)} example questions, which is too many",
            remedy,
            field="examples",
        )
    for question in questions:
        if not isinstance(question, str) or not question.strip() or len(question) > LONGEST_EXAMPLE:
            raise AdapterError(
                path,
                "an example question must be text, neither empty nor too long",
                remedy,
                field="examples",
                value=question,
            )
    return tuple(cast("list[str]", questions))


def _names(
    folder: Path, fields: Mapping[str, Any], alias: str | None, version: str | None, language: str | None
) -> names.FolderName:
    """Return the adapter's names: those in the arguments, else those in oneseek.json, else those in the
    folder's name.
    """
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
        remedy = "Name the adapter as NAME=PATH, or in its oneseek.json."
        raise AdapterError(
            folder, f"the folder's name gives no alias for the adapter ({problem})", remedy
        ) from problem
    return names.FolderName(alias or told.alias, version or told.version, language or told.language)


def _read(path: Path, fields: Mapping[str, Any], field: str, check: Callable[[str], str]) -> str | None:
    value = fields.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise AdapterError(path, "the field must be text", "Correct the field.", field=field, value=value)
    try:
        return check(value)
    except ValueError as problem:
        raise AdapterError(path, str(problem), "Correct the field.", field=field, value=value) from problem


def _digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ValueError("a recorded digest must be sha256: followed by 64 hex digits")
    return text
