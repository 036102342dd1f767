"""Which safetensors files of a folder are the base: one rule for digest, engine, merge and checks.

The rule is that of transformers 5.23, `modeling_utils._get_resolved_checkpoint_files`: the file or the index
that `transformers_weights` in config.json names, else model.safetensors, else the files that
model.safetensors.index.json names. Nothing else in the folder is read: no consolidated.safetensors in
Mistral's own layout, no shards without an index.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from adapters.errors import BaseModelError
from adapters.files.jsonfile import read_object

HEAD = "lm_head.weight"
"""What transformers calls the output head in every causal language model."""
SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
MAX_BASE_JSON_BYTES = 64 << 20
COMPLETE = "Download or save the base again, whole."

_EXPLICIT = "transformers_weights"
_SUFFIX, _INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The weights of a base."""

    files: tuple[Path, ...]
    """In the order of the digest. If two hold a tensor of one name, the later one counts."""
    index: Path | None = None
    """The index that names them; None if one file holds everything."""
    warning: str | None = None
    """What else the folder holds that other programs may take for the base."""


def find_checkpoint(folder: Path) -> CheckpointFiles:
    """The weights of the base in `folder`.

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
    """The files of `find_checkpoint`, with the same refusals."""
    return find_checkpoint(folder).files


def named_in_full(names: Collection[str], prefix: str) -> dict[str, str]:
    """Tensor's name in a checkpoint → its name in the whole model, the one with a head.

    transformers' rule (`PreTrainedModel.from_pretrained`): if no name begins with `prefix`, the checkpoint is
    of the model without its head, such as OpenAI's GPT-2, and leaves it out.
    """
    bare = prefix and not any(name.startswith(f"{prefix}.") for name in names)
    return {name: f"{prefix}.{name}" if bare and name != HEAD else name for name in names}


def every_safetensors(folder: Path) -> frozenset[str]:
    """Names of the files that vLLM reads from `folder`: all *.safetensors, or those of them in the index.

    Its `DefaultModelLoader._prepare_weights` takes the index even if model.safetensors lies beside it.
    """
    found = {path.name for path in folder.glob("*.safetensors")}
    index = folder / INDEX_FILE
    if index.is_file():
        found &= {str(name) for name in _weight_map(index)}
    return frozenset(found)


def _explicit(folder: Path) -> Path | None:
    """What config.json names by itself, if it does."""
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
        raise BaseModelError(found, f"is missing, though config.json names it as {_EXPLICIT}", COMPLETE)
    return found


def _indexed(index: Path) -> tuple[Path, ...]:
    """The files that an index names, sorted."""
    names = _weight_map(index)
    if not names:
        raise BaseModelError(index, "names no file in weight_map", COMPLETE)
    files: list[Path] = []
    for name in sorted(names, key=str):
        if not _is_plain(name) or not str(name).endswith(_SUFFIX):
            reason = "is not the name of a file beside it"
            raise BaseModelError(index, reason, COMPLETE, field="weight_map", value=name)
        files.append(index.parent / str(name))
    for file in files:
        if not file.is_file():
            raise BaseModelError(file, f"is missing, though {index.name} names it", COMPLETE)
    return tuple(files)


def _weight_map(index: Path) -> set[object]:
    named: object = read_object(index, MAX_BASE_JSON_BYTES, BaseModelError).get("weight_map")
    values: list[object] = list(named.values()) if isinstance(named, dict) else []
    return {value if isinstance(value, str | int) else str(value) for value in values}


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and "\\" not in name


def _warning(folder: Path) -> str | None:
    """What lies beside model.safetensors and could be taken for the base instead."""
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
        reason = f"holds {names[0]} alone, which is in Mistral's own layout"
        return BaseModelError(folder, reason, "Download the base in Hugging Face layout: model*.safetensors.")
    reason = f"holds {names[0]}, and neither {SINGLE_FILE} nor {INDEX_FILE}"
    return BaseModelError(folder, reason, COMPLETE)
