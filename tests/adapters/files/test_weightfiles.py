"""One rule for which files are the base, and it is transformers'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers.modeling_utils import (
    _get_resolved_checkpoint_files,  # pyright: ignore[reportPrivateUsage] # the rule that is followed
)

from adapters.errors import BaseModelError
from adapters.files.weightfiles import find_checkpoint, weight_files

INDEX = "model.safetensors.index.json"


def write(folder: Path, *names: str, index: object = None, config: object = None) -> Path:
    for name in names:
        (folder / name).write_bytes(b"")
    if index is not None:
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def names(folder: Path) -> list[str]:
    return [file.name for file in weight_files(folder)]


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
MAP = {"weight_map": {"x": SHARDS[1], "y": SHARDS[0], "z": SHARDS[1]}}
STALE = {"weight_map": {"x": "model-00001-of-00009.safetensors"}}
NAMED = {"transformers_weights": "other.safetensors"}


@pytest.mark.parametrize(
    ("files", "index", "config", "expected"),
    [
        (("model.safetensors",), None, {}, ["model.safetensors"]),
        (("model.safetensors", *SHARDS), MAP, {}, ["model.safetensors"]),
        (("model.safetensors",), STALE, {}, ["model.safetensors"]),
        ((*SHARDS, "consolidated.safetensors", "model-00003-of-00003.safetensors"), MAP, {}, [*SHARDS]),
        (("model.safetensors", "consolidated.safetensors"), None, {}, ["model.safetensors"]),
        (("model.safetensors", "other.safetensors"), None, NAMED, ["other.safetensors"]),
        (("model.safetensors", *SHARDS), MAP, {"transformers_weights": INDEX}, [*SHARDS]),
    ],
)
def test_the_files_are_those_that_transformers_takes(
    files: tuple[str, ...], index: object, config: dict[str, str], expected: list[str], tmp_path: Path
) -> None:
    write(tmp_path, *files, index=index, config=config)
    assert names(tmp_path) == expected
    if index is MAP:  # it asks for this key of an index that it reads
        write(tmp_path, index={**MAP, "metadata": {}})
    resolved, _ = _get_resolved_checkpoint_files(
        str(tmp_path),
        variant=None,
        gguf_file=None,
        use_safetensors=True,
        user_agent=None,
        is_remote_code=False,
        transformers_explicit_filename=config.get("transformers_weights"),
    )
    assert [Path(file).name for file in resolved or ()] == expected


def test_the_index_is_named_only_if_it_was_used(tmp_path: Path) -> None:
    write(tmp_path, *SHARDS, index=MAP)
    assert find_checkpoint(tmp_path).index == tmp_path / INDEX
    assert find_checkpoint(tmp_path).warning is None
    write(tmp_path, "model.safetensors")
    found = find_checkpoint(tmp_path)
    assert found.index is None
    assert found.warning is not None
    assert str(tmp_path) in found.warning
    (tmp_path / INDEX).unlink()
    assert find_checkpoint(tmp_path).warning is not None
    for name in SHARDS:
        (tmp_path / name).unlink()
    write(tmp_path, "consolidated.safetensors")
    assert find_checkpoint(tmp_path).warning is None


@pytest.mark.parametrize("files", [("consolidated.safetensors",), SHARDS, ("model-q4.safetensors",)])
def test_files_that_nothing_names_are_not_the_base(files: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, *files)
    with pytest.raises(BaseModelError, match=files[0]):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../a.safetensors", "/etc/a.safetensors", "sub/a.safetensors", "c:\\a.safetensors", "a.bin", 3, {}],
)
def test_an_index_names_files_beside_it_alone(name: object, tmp_path: Path) -> None:
    write(tmp_path, index={"weight_map": {"x": name}})
    with pytest.raises(BaseModelError, match="weight_map"):
        weight_files(tmp_path)
    if isinstance(name, str):
        (tmp_path / INDEX).unlink()
        write(tmp_path, "model.safetensors", config={"transformers_weights": name})
        with pytest.raises(BaseModelError, match="transformers_weights"):
            weight_files(tmp_path)


@pytest.mark.parametrize(
    ("index", "said"),
    [({}, "weight_map"), ({"weight_map": {"x": "gone.safetensors"}}, r"gone\.safetensors: ")],
)
def test_an_index_without_its_files_is_refused(index: object, said: str, tmp_path: Path) -> None:
    write(tmp_path, index=index)
    with pytest.raises(BaseModelError, match=said):
        weight_files(tmp_path)
