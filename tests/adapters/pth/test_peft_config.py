"""A pickle beside PEFT's own config, which is what counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from adapters.errors import AdapterError
from adapters.lora.config import LoraConfig
from adapters.pth.conversion import convert_file
from adapters.pth.importer import import_pickle
from adapters.registry.registry import Base, Registry
from tests.adapters.pth.pickles import FULL, Q, V, beside_peft, converted, lora


@pytest.mark.parametrize(
    ("change", "scalings"),
    [
        ({}, (2.0, 2.0)),
        ({"use_rslora": True}, (4.0, 4.0)),
        ({"alpha_pattern": {"v_proj": 64, r"layers\.1\..*": 1}}, (2.0, 16.0)),
    ],
)
def test_pefts_own_config_is_what_counts(
    change: Mapping[str, Any], scalings: tuple[float, float], tmp_path: Path, base: Base
) -> None:
    file = beside_peft(tmp_path / "mine-v2-SV", lora(), **change)
    found = import_pickle(Registry(tmp_path / "home"), file, base=base)
    assert found.warnings == ()
    assert (found.added.adapter.full_name, found.added.adapter.language) == ("mine-sv@v2", "sv")
    read = LoraConfig.read(found.added.adapter.path)
    assert (read.scaling_of(Q), read.scaling_of(V)) == scalings


def test_weights_that_are_not_pefts_config_are_refused(tmp_path: Path, base: Base) -> None:
    file = beside_peft(tmp_path / "mine", lora(), target_modules=["q_proj", "v_proj", "o_proj"])
    with pytest.raises(AdapterError, match=r"\btarget_modules\b.*\bo_proj\b"):
        import_pickle(Registry(tmp_path / "home"), file, base=base)
    assert not list((tmp_path / "home" / "registry").glob("*/*"))


VARIANTS: list[dict[str, Any]] = [
    {"init_lora_weights": "pissa"},
    {"use_dora": True},
    {"modules_to_save": ["lm_head"]},
    {"bias": "all"},
    {"trainable_token_indices": [1, 2]},
]


@pytest.mark.parametrize("change", VARIANTS, ids=lambda change: next(iter(change)))
def test_a_conversion_refuses_what_a_folder_is_refused_for(change: dict[str, Any], tmp_path: Path) -> None:
    """In PEFT's config, in the .json of a training, and in the pickle itself."""
    (field,) = change
    with pytest.raises(AdapterError, match=field):
        convert_file(beside_peft(tmp_path / "a", lora(), **change), tmp_path / "out")
    with pytest.raises(AdapterError, match=field):
        converted(tmp_path / "b", lora(), lora_config={"lora_alpha": 8, **change})
    if field in ("init_lora_weights", "trainable_token_indices"):
        with pytest.raises(AdapterError, match=field):
            converted(tmp_path / "c", {"state_dict": lora(), "config": {"lora_alpha": 8, **change}})


def test_pefts_own_folder_needs_no_conversion(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(AdapterError, match=f"oneseek adapters add {tmp_path}"):
        convert_file(tmp_path / "adapter_model.safetensors", tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        FULL.removeprefix("base_model.model."),
        FULL.replace("model.layers", "layers"),
        FULL.replace("model.layers", "model.language_model.layers"),
        FULL.replace("base_model.model.", "base_model.model._orig_mod."),
        f"module.{FULL}",
    ],
)
def test_a_peft_folder_whose_tensors_are_named_otherwise_is_converted(
    name: str, tmp_path: Path, base: Base
) -> None:
    folder = beside_peft(tmp_path / "mine-v2-SV", {}, use_rslora=True).parent
    save_file(lora(name), file := folder / "adapter_model.safetensors")
    registry = Registry(tmp_path / "home")
    with pytest.raises(AdapterError, match=rf"oneseek adapters import {file}\Z"):
        registry.add(folder, base=base)
    found = import_pickle(registry, file, base=base).added.adapter
    assert (found.full_name, found.language) == ("mine-sv@v2", "sv")
    assert LoraConfig.read(found.path).scaling_of(Q) == 4.0
    assert load_file(found.path / "adapter_model.safetensors").keys() == lora().keys()


def test_a_peft_folder_with_pefts_names_is_not_converted(tmp_path: Path) -> None:
    folder = beside_peft(tmp_path / "mine", {}).parent
    save_file(lora(), folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=f"oneseek adapters add {folder}"):
        convert_file(folder / "adapter_model.safetensors", tmp_path / "out")
