"""Find the safetensors files that make up a base: one rule for digest, engine, merge and checks.

The rule is that of transformers 5.23, `modeling_utils._get_resolved_checkpoint_files`. If config.json has
`transformers_weights`, that file or index is used, else model.safetensors, else the files that
model.safetensors.index.json names. Nothing else in the folder is read: no consolidated.safetensors in
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
COMPLETE = "Download or save the complete base again."

_EXPLICIT = "transformers_weights"
_SUFFIX, _INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The weight files of a base."""

    files: tuple[Path, ...]
    """The files, in the order of the digest. If two hold a tensor of one name, the later one counts."""
    index: Path | None = None
    """The index that names the files. None if there is only one file."""
    warning: str | None = None
    """Warning about other files in the folder that programs may take for the base. None if there are none."""


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
    """Return the checkpoint's weight files. Raises the errors of `find_checkpoint`."""
    return find_checkpoint(folder).files


def named_in_full(names: Collection[str], prefix: str) -> dict[str, str]:
    """Map each tensor's name in a checkpoint to its name in the whole model, which has a head.

    This is transformers' rule (`PreTrainedModel.from_pretrained`). If no name begins with `prefix`, the
    checkpoint holds the model without its head and omits the prefix, as OpenAI's GPT-2 does.
    """
    bare = prefix and not any(name.startswith(f"{prefix}.") for name in names)
    return {name: f"{prefix}.{name}" if bare and name != HEAD else name for name in names}


def every_safetensors(folder: Path) -> frozenset[str]:
    """List the files that vLLM reads from `folder`: all *.safetensors files, or those that the index names.

    Its `DefaultModelLoader._prepare_weights` uses the index even if model.safetensors lies beside it.
    """
    found = {path.name for path in folder.glob("*.safetensors")}
    index = folder / INDEX_FILE
    if index.is_file():
        found &= {str(name) for name in _weight_map(index)}
    return frozenset(found)


def _explicit(folder: Path) -> Path | None:
    """Return the file that config.json names, if it names one."""
    config = folder / "config.json"
    if not config.is_file():
        return None
    name: object = read_object(config, MAX_BASE_JSON_BYTES, BaseModelError).get(_EXPLICIT)
    if name is None:
        return None
    if not _is_plain(name) or not str(name).endswith((_SUFFIX, _INDEX_SUFFIX)):
        reason = "is not the name of a safetensors file, or of an index, beside it"
        raise BaseModelError(config, reason, COMPLETE, field=_EXPLICIT, value=name)
    found = folder / str(name)
    if not found.is_file():
        raise BaseModelError(found, f"is missing, but config.json names it as {_EXPLICIT}", COMPLETE)
    return found


def _indexed(index: Path) -> tuple[Path, ...]:
    """Return the files that an index names, sorted."""
    names = _weight_map(index)
    if not names:
        raise BaseModelError(index, "does not name any file in its weight_map", COMPLETE)
    files: list[Path] = []
    for name in sorted(names, key=str):
        if not _is_plain(name) or not str(name).endswith(_SUFFIX):
            reason = "is not the name of a file beside it"
            raise BaseModelError(index, reason, COMPLETE, field="weight_map", value=name)
        files.append(index.parent / str(name))
    for file in files:
        if not file.is_file():
            raise BaseModelError(file, f"is missing, but {index.name} names it", COMPLETE)
    return tuple(files)


def _weight_map(index: Path) -> set[object]:
    named: object = read_object(index, MAX_BASE_JSON_BYTES, BaseModelError).get("weight_map")
    values: list[object] = list(named.values()) if isinstance(named, dict) else []
    return {value if isinstance(value, str | int) else str(value) for value in values}


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and "\\" not in name


def _warning(folder: Path) -> str | None:
    """Return a warning about files beside model.safetensors that could be taken for the base."""
    shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
    others = [INDEX_FILE] if (folder / INDEX_FILE).is_file() else shards[:1]
    if not others:
        return None
    return (
        f"{folder} holds {SINGLE_FILE} and {others[0]}: the base is {SINGLE_FILE} alone. "
        "Remove the files that you do not need"
    )


def _nothing(folder: Path) -> BaseModelError:
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        return BaseModelError(folder, f"holds no {_SUFFIX} file", COMPLETE)
    if all(name.startswith("consolidated") for name in names):
        reason = f"holds only {names[0]}, which is in Mistral's own layout"
        return BaseModelError(folder, reason, "Download the base in Hugging Face layout: model*.safetensors.")
    reason = f"holds {names[0]}, but neither {SINGLE_FILE} nor {INDEX_FILE}"
    return BaseModelError(folder, reason, COMPLETE)
