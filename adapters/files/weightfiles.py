"""Find the safetensors files of a base. Digests, the engine, merging and checks all use this rule.

The rule is that of transformers 5.23, `modeling_utils._get_resolved_checkpoint_files`. If config.json has
`transformers_weights`, the file or index that it names is used; else model.safetensors; else the files that
model.safetensors.index.json names. No other file in the folder is read: no consolidated.safetensors in
Mistral's own layout, and no shards without an index.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from adapters.errors import BaseModelError
from adapters.files.jsonfile import read_object

HEAD = "lm_head.weight"
"""Name of the output head's tensor in every causal language model of transformers."""
SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
MAX_BASE_JSON_BYTES = 64 << 20
COMPLETE = "The base is incomplete or damaged: download or save all of its files again."

_EXPLICIT = "transformers_weights"
_SUFFIX, _INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The weight files of a base."""

    files: tuple[Path, ...]
    """The weight files, in the order in which the base's digest is computed over them. If two files hold a
    tensor of one name, the later file counts.
    """
    index: Path | None = None
    """Path of the index file that lists the weight files; None if there is only one weight file."""
    warning: str | None = None
    """Warning if the folder holds other weight files that programs may take for the base; None otherwise."""


def find_checkpoint(folder: Path) -> CheckpointFiles:
    """Find the weight files of the base in `folder`.

    Raises `BaseModelError` if there are none, one is missing, or an index names files outside the folder.
    """
    explicit = _explicit(folder)
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if explicit is not None and not explicit.name.endswith(_INDEX_SUFFIX):
        return CheckpointFiles((explicit,))
    if explicit is not None:
        return CheckpointFiles(_indexed(explicit), explicit)
    if single.is_file():
        return CheckpointFiles((single,), warning=_warning(folder))
    if index.is_file():
        return CheckpointFiles(_indexed(index), index)
    raise _nothing(folder)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the weight files of the base in `folder`. Raises the errors of `find_checkpoint`."""
    return find_checkpoint(folder).files


def named_in_full(names: Collection[str], prefix: str) -> dict[str, str]:
    """Map each tensor's name in a checkpoint to its name in the full causal language model, which has an
    output head.

    This is transformers' rule (`PreTrainedModel.from_pretrained`). If no name begins with `prefix`, the
    checkpoint holds the model without its head and its names lack the prefix, as in OpenAI's GPT-2.
    """
    bare = prefix and not any(name.startswith(f"{prefix}.") for name in names)
    return {name: f"{prefix}.{name}" if bare and name != HEAD else name for name in names}


def every_safetensors(folder: Path) -> frozenset[str]:
    """Return the names of the files that vLLM reads from `folder`: all *.safetensors files, or those that the
    index names.

    vLLM's `DefaultModelLoader._prepare_weights` uses the index even if model.safetensors lies beside it.
    """
    found = {path.name for path in folder.glob("*.safetensors")}
    index = folder / INDEX_FILE
    if index.is_file():
        found &= {str(name) for name in _weight_map(index)}
    return frozenset(found)


def _explicit(folder: Path) -> Path | None:
    """Return the weight file or index that config.json names as `transformers_weights`; None if it names
    none. Raises `BaseModelError` for an invalid name or a missing file.
    """
    config = folder / "config.json"
    if not config.is_file():
        return None
    name: object = read_object(config, MAX_BASE_JSON_BYTES, BaseModelError).get(_EXPLICIT)
    if name is None:
        return None
    if not _is_plain(name) or not str(name).endswith((_SUFFIX, _INDEX_SUFFIX)):
        raise BaseModelError(
            config,
            "the value is not the name of a safetensors file, or of an index, beside config.json",
            COMPLETE,
            field=_EXPLICIT,
            value=name,
        )
    found = folder / str(name)
    if not found.is_file():
        raise BaseModelError(
            found, f"the weight file is missing, but config.json names it as {_EXPLICIT}", COMPLETE
        )
    return found


def _indexed(index: Path) -> tuple[Path, ...]:
    """Return the weight files that the index file `index` names, sorted by name. Raises `BaseModelError` for
    an invalid name or a missing file.
    """
    names = _weight_map(index)
    if not names:
        raise BaseModelError(index, "the index does not name any weight file in its weight_map", COMPLETE)
    files: list[Path] = []
    for name in sorted(names, key=str):
        if not _is_plain(name) or not str(name).endswith(_SUFFIX):
            raise BaseModelError(
                index,
                "the value is not the name of a safetensors file beside the index",
                COMPLETE,
                field="weight_map",
                value=name,
            )
        files.append(index.parent / str(name))
    for file in files:
        if not file.is_file():
            raise BaseModelError(file, f"the weight file is missing, but {index.name} names it", COMPLETE)
    return tuple(files)


def _weight_map(index: Path) -> set[object]:
    named: object = read_object(index, MAX_BASE_JSON_BYTES, BaseModelError).get("weight_map")
    values: list[object] = list(named.values()) if isinstance(named, dict) else []
    return {value if isinstance(value, str | int) else str(value) for value in values}


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and "\\" not in name


def _warning(folder: Path) -> str | None:
    """Return a warning if files beside model.safetensors could be taken for the base; None otherwise."""
    shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
    others = [INDEX_FILE] if (folder / INDEX_FILE).is_file() else shards[:1]
    if not others:
        return None
    return (
        f"The folder {folder} holds {SINGLE_FILE} and {others[0]}: only {SINGLE_FILE} is used as the base. "
        "Remove the weight files that you do not need"
    )


def _nothing(folder: Path) -> BaseModelError:
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        return BaseModelError(folder, f"the base's folder holds no {_SUFFIX} file", COMPLETE)
    if all(name.startswith("consolidated") for name in names):
        reason = f"the base's folder holds only {names[0]}, which is in Mistral's own layout"
        return BaseModelError(folder, reason, "Download the base in Hugging Face layout: model*.safetensors.")
    reason = f"the base's folder holds {names[0]}, but neither {SINGLE_FILE} nor {INDEX_FILE}"
    return BaseModelError(folder, reason, COMPLETE)
