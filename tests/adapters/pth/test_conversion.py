"""A .pth of an existing installation: what is converted, under which names, and what is refused unrun."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from adapters.errors import AdapterError, format_value
from adapters.ledger import Ledger
from adapters.lora.config import LoraConfig
from adapters.lora.digest import adapter_digest
from adapters.lora.families import GPT2, Sizes
from adapters.lora.manifest import read_fields
from adapters.lora.weights import ModelShape, read_adapter
from adapters.pth.conversion import (
    DEFAULT_ALPHA,
    WHOLE_MODEL,
    ConversionLimits,
    ConversionResult,
    convert_file,
)
from adapters.pth.importer import import_pickle
from adapters.pth.unpickle import RefusedError, map_factors
from adapters.pth.unpickle import extract_lora as convert_here
from adapters.registry.registry import Base, Registry
from tests.adapters.pth.pickles import FULL, Q, Tensors, V, beside_peft, converted, lora, saved


def written(found: Mapping[str, Any], folder: Path) -> Tensors:
    assert found
    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        FULL,
        FULL.replace(".weight", ".default.weight"),
        FULL.replace(".weight", ".default"),
        FULL.replace(".weight", ""),
        FULL.removeprefix("base_model.model."),
        FULL.removeprefix("base_model.model.model."),
        f"module.{FULL}",
        FULL.removeprefix("base_model.model.").replace("self_attn.", ""),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_layouts_are_mapped_to_pefts(name: str, turned: bool, tmp_path: Path) -> None:
    file = saved(tmp_path, lora(name, turned=turned))
    found = written(convert_here(file, tmp_path, ConversionLimits()), tmp_path)
    expected = lora()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_safetensors_are_read_by_any_name_and_refused_if_damaged(tmp_path: Path) -> None:
    file, expected = tmp_path / "zero-v1.safetensors", lora()
    save_file(lora(FULL.replace(".weight", ".default.weight")), file)
    found = written(convert_here(file, tmp_path, ConversionLimits()), tmp_path)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(RefusedError) as caught:
        convert_here(file, tmp_path, ConversionLimits())
    assert isinstance(caught.value.__cause__, SafetensorError)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "adapter", "lora_state_dict"])
def test_wrappers_are_looked_into(wrapper: str, tmp_path: Path) -> None:
    document = {
        wrapper: lora(),
        "epoch": 3,
        "lora_config": {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj"]},
    }
    answer = convert_here(saved(tmp_path, document), tmp_path, ConversionLimits())
    assert answer["settings"]["lora_config"]["lora_alpha"] == 16
    assert [row[:2] for row in answer["modules"]] == [
        [0, "q_proj"],
        [0, "v_proj"],
        [1, "q_proj"],
        [1, "v_proj"],
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_kept_where_they_are_served(dtype: torch.dtype, tmp_path: Path) -> None:
    found = written(convert_here(saved(tmp_path, lora(dtype=dtype)), tmp_path, ConversionLimits()), tmp_path)
    kept = torch.float32 if dtype == torch.float64 else dtype
    assert {tensor.dtype for tensor in found.values()} == {kept}


def test_frozen_weights_beside_it_are_left_out_and_said() -> None:
    frozen = {"base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight": torch.ones(32, 32)}
    factors, warnings = map_factors({**lora(), **frozen})
    assert len(factors) == 4
    (warning,) = warnings
    assert warning.startswith("1 ")
    assert format_value(next(iter(frozen))) in warning


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"model.layers.0.self_attn.q_proj.weight": torch.ones(2, 2)}, re.escape(WHOLE_MODEL)),
        ({"state_dict": {"lm_head.weight": torch.ones(2, 2)}}, re.escape(WHOLE_MODEL)),
        ({"x": torch.ones(2)}, "LoRA .*'x'"),
        ({"loss": 4.48}, "LoRA .*nothing"),
        ([torch.ones(2)], r"\blist\b"),
        ({"a": lora(), "b": lora()}, r"\bseveral\b"),
        ({**lora(), **lora(FULL.replace(".weight", ".other.weight"))}, r"lora_[AB] .*_proj\b"),
        (dict(list(lora().items())[:-1]), r"model\.layers\.1\.self_attn\.v_proj\b"),
        ({**lora(), "base_model.model.lm_head.lora_A.weight": torch.ones(4, 4)}, r"lm_head\.lora_A"),
        ({**lora(), "x.q_proj.lora_magnitude_vector": torch.ones(4)}, "lora_magnitude_vector"),
        ({**lora(), "x.modules_to_save.weight": torch.ones(4)}, "modules_to_save"),
        ({key: tensor.to(torch.int8) for key, tensor in lora().items()}, "torch.int8"),
        ({key: tensor[:, :3] for key, tensor in lora().items()}, r"_proj .*\[4, 3\].*\[32, 3\]"),
        ({key: tensor.flatten() for key, tensor in lora().items()}, r"_proj .*\[128\]"),
    ],
)
def test_what_is_no_adapter_is_named(document: object, said: str, tmp_path: Path) -> None:
    file = saved(tmp_path, document)
    with pytest.raises(RefusedError) as caught:
        convert_here(file, tmp_path, ConversionLimits())
    assert re.search(said, f"{caught.value.reason}. {caught.value.remedy}")


class Hostile:
    """A pickle that would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        import os

        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("form", ["plain", "torch", "protocol 4", "hidden"])
def test_a_hostile_pickle_is_refused_and_not_run(form: str, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    file = tmp_path / "adapter.pth"
    document = {**lora(), "x": Hostile(mark)}
    if form == "plain":
        file.write_bytes(pickle.dumps(document["x"]))
    elif form == "hidden":
        torch.save(lora(), file)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("adapter/other.pkl", pickle.dumps(document["x"]))
    else:
        torch.save(document, file, pickle_protocol=4 if form == "protocol 4" else 2)
    with pytest.raises(AdapterError) as caught:
        convert_file(file, tmp_path / "out")
    assert not mark.exists()
    expected = {"torch": r"'(posix|nt)\.mkdir'", "protocol 4": "'STACK_GLOBAL'", "hidden": r"\bdata\.pkl\b"}
    assert re.search(expected.get(form, r"\btorch\.load\b"), str(caught.value))


def test_limits_hold(tmp_path: Path) -> None:
    file = saved(tmp_path, lora())
    for limits, said in (
        (ConversionLimits(file_bytes=1000), "1000 bytes"),
        (ConversionLimits(tensors=7), r"8 tensors.* 7"),
        (ConversionLimits(tensor_bytes=100), r"\b100\b"),
        (ConversionLimits(pickle_bytes=10), r"\b10 bytes"),
    ):
        with pytest.raises(RefusedError, match=said):
            convert_here(file, tmp_path, limits)
    with pytest.raises(AdapterError, match=r"\b0 seconds"):
        convert_file(file, tmp_path / "a", limits=ConversionLimits(seconds=0))
    with pytest.raises(AdapterError, match=rf"\b1000\b.*{re.escape(WHOLE_MODEL)}"):
        convert_file(file, tmp_path / "b", limits=ConversionLimits(file_bytes=1000))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no bound on memory here")
def test_memory_is_bounded(tmp_path: Path) -> None:
    name = FULL.format(layer=0, module="q_proj", half="A")
    file = saved(tmp_path, {**lora(), name: torch.ones(1, 1).expand(4, 1 << 28)})
    assert file.stat().st_size < 1 << 20, "it unfolds to 4 GiB"
    with pytest.raises(AdapterError, match="memory"):
        convert_file(
            file, tmp_path / "out", limits=ConversionLimits(memory_bytes=1 << 30, tensor_bytes=8 << 30)
        )


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, lora())
    with (
        zipfile.ZipFile(file) as archive,
        zipfile.ZipFile(tmp_path / "c.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in archive.namelist():
            bomb.writestr(name, archive.read(name))
    with pytest.raises(AdapterError, match="compressed"):
        convert_file(tmp_path / "c.pth", tmp_path / "out")


def config(found: ConversionResult) -> dict[str, Any]:
    return json.loads((found.folder / "adapter_config.json").read_text(encoding="utf-8"))


def test_what_the_json_says_is_kept(tmp_path: Path) -> None:
    said: dict[str, Any] = {
        "version": "OneSeek-7B-Zero.v1.1",
        "base_model": "Mistral-7B",
        "language": "en",
        "lora_config": {
            "r": 4,
            "lora_alpha": 16,
            "target_modules": ["q_proj", "v_proj"],
            "lora_dropout": 0.05,
        },
        "metrics": {"loss": 4.48, "accuracy": 0.85},
    }
    found = converted(tmp_path, lora(), **said)
    assert found.warnings == ()
    assert (found.name.alias, found.name.version, found.name.language) == ("oneseek-7b-zero", "v1.1", "en")
    assert found.notes["metrics"] == {"loss": 4.48, "accuracy": 0.85}
    assert found.notes["origin"]["json"] == said
    told = config(found)
    assert (told["r"], told["lora_alpha"], told["target_modules"]) == (4, 16, ["q_proj", "v_proj"])
    assert told["base_model_name_or_path"] == "Mistral-7B"


def test_alpha_is_said_taken_or_passed(tmp_path: Path) -> None:
    silent = converted(tmp_path / "a", lora())
    assert config(silent)["lora_alpha"] == DEFAULT_ALPHA
    assert re.search(r"\blora_alpha\b.*\b32\b.*--alpha\b", silent.warnings[0])
    inside = converted(tmp_path / "b", {"state_dict": lora(), "config": {"lora_alpha": 12}})
    assert (config(inside)["lora_alpha"], inside.warnings) == (12, ())
    written = converted(tmp_path / "d", lora(), lora_config={"lora_alpha": "16", "alpha": "warm"})
    assert (config(written)["lora_alpha"], written.warnings) == (16, ())
    passed = converted(tmp_path / "c", lora(), alpha=7.5, lora_config={"lora_alpha": 16})
    assert (config(passed)["lora_alpha"], passed.warnings) == (7.5, ())


@pytest.mark.parametrize("alpha", [float("nan"), float("inf")])
def test_an_alpha_that_is_no_number_is_refused(tmp_path: Path, alpha: float) -> None:
    for name, given in (("a", {"alpha": alpha}), ("b", {})):
        with pytest.raises(AdapterError, match="lora_alpha"):
            converted(tmp_path / name, {"state_dict": lora(), "config": {"lora_alpha": alpha}}, **given)


def test_ranks_are_what_the_shapes_say(tmp_path: Path) -> None:
    mixed = {
        **lora(),
        **{key: tensor for key, tensor in lora(rank=2).items() if "layers.1.self_attn.q" in key},
    }
    found = converted(tmp_path, mixed, r=8, alpha=16)
    assert config(found)["r"] == 4
    assert config(found)["rank_pattern"] == {"model.layers.1.self_attn.q_proj": 2}
    assert "rank 8" in found.warnings[0]
    assert "[2, 4]" in found.warnings[0]


def test_a_part_of_what_was_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="o_proj"):
        converted(tmp_path, lora(), target_modules=["q_proj", "o_proj"], alpha=1)


GPT2_NAME = "base_model.model.transformer.h.{layer}.{module}.lora_{half}.weight"
GPT2_SIZES = {"attn.c_attn": (32, 96), "attn.c_proj": (32, 32), "mlp.c_fc": (32, 64), "mlp.c_proj": (64, 32)}


def gpt2_lora(name: str = GPT2_NAME) -> Tensors:
    """Every module of two layers, of rank 4."""
    made = torch.Generator().manual_seed(1)
    found: Tensors = {}
    for layer in range(2):
        for module, (inputs, out) in GPT2_SIZES.items():
            for half, size in (("A", (4, inputs)), ("B", (out, 4))):
                found[name.format(layer=layer, module=module, half=half)] = torch.randn(size, generator=made)
    return found


@pytest.mark.parametrize(
    "name",
    [
        GPT2_NAME,
        GPT2_NAME.replace(".weight", ".default.weight"),
        GPT2_NAME.removeprefix("base_model.model."),
        GPT2_NAME.removeprefix("base_model.model.transformer."),
        f"module.{GPT2_NAME}",
    ],
)
def test_a_gpt2s_adapter_is_converted_too(name: str, tmp_path: Path) -> None:
    found = converted(tmp_path, {"lora": gpt2_lora(name)}, target_modules=["c_attn", "c_proj", "c_fc"])
    fields = config(found)
    assert fields["target_modules"] == ["attn.c_proj", "c_attn", "c_fc", "mlp.c_proj"]
    assert fields["fan_in_fan_out"] is True
    tensors = written({"found": True}, found.folder)
    assert {key: value.tolist() for key, value in tensors.items()} == {
        key: value.tolist() for key, value in gpt2_lora().items()
    }
    sizes = Sizes(hidden=32, intermediate=64, heads=2, kv_heads=2, head_dim=16, layers=2)
    assert len(read_adapter(found.folder, ModelShape(GPT2, sizes)).modules) == 8


def test_a_part_of_a_gpt2s_adapter_is_refused(tmp_path: Path) -> None:
    tensors = {name: value for name, value in gpt2_lora().items() if "c_attn" not in name}
    with pytest.raises(AdapterError, match="c_attn"):
        converted(tmp_path, tensors, target_modules=["c_attn", "c_proj", "c_fc"])
    with pytest.raises(AdapterError, match=re.escape(WHOLE_MODEL)):
        convert_file(saved(tmp_path / "whole", {"transformer.wte.weight": torch.ones(4, 4)}), tmp_path / "x")


def test_an_import_is_a_version_with_its_origin(tmp_path: Path, base: Base) -> None:
    ledger = Ledger.open(tmp_path / "ledger")
    registry = Registry(tmp_path / "home", ledger)
    file = saved(
        tmp_path / "weights", lora(), "oneseek-7b-zero-v1.1-SV.pth", metrics={"loss": 4.48}, alpha=16
    )
    found = import_pickle(registry, file, base=base)
    adapter = found.added.adapter
    assert (adapter.full_name, adapter.language, adapter.alpha) == ("oneseek-7b-zero-sv@v1.1", "sv", 16)
    origin = read_fields(adapter.path)["origin"]
    assert (origin["file"], origin["json"]["alpha"]) == (file.name, 16)
    (change,) = (entry.record for entry in ledger.entries())
    assert (change.action, change.inputs["source"]) == ("import", origin["digest"])
    assert change.details == {"file": file.name, "language": "sv", "base": "unverified"}
    assert change.outputs == {"adapter": adapter_digest(adapter.path)}
    assert not import_pickle(registry, file, base=base).added.new, "importing again changes nothing"


def test_an_adapter_pth_is_named_by_its_folder(tmp_path: Path, base: Base) -> None:
    file = saved(tmp_path / "lora_adapters" / "oneseek-7b-zero-v1.2", lora(), "adapter.pth", lora_alpha=8)
    registry = Registry(tmp_path / "home")
    assert import_pickle(registry, file, base=base).added.adapter.full_name == "oneseek-7b-zero@v1.2"
    named = import_pickle(registry, file, base=base, alias="mine", version="v3", language="sv").added.adapter
    assert (named.full_name, named.language) == ("mine@v3", "sv")


def test_a_metric_is_not_taken_for_a_setting(tmp_path: Path) -> None:
    assert config(converted(tmp_path, lora(), metrics={"bias": 0.12, "r": 0.9}, alpha=8))["lora_alpha"] == 8


def test_an_alpha_pattern_in_the_pickle_is_kept(tmp_path: Path) -> None:
    inside = {"lora_alpha": 8, "alpha_pattern": {"v_proj": 64}, "use_rslora": True}
    found = converted(tmp_path, {"state_dict": lora(), "config": inside})
    read = LoraConfig.read(found.folder)
    assert (read.scaling_of(Q), read.scaling_of(V)) == (4.0, 32.0)


def test_trained_embeddings_are_not_left_out(tmp_path: Path) -> None:
    embedding = {"base_model.model.model.embed_tokens.weight": torch.ones(64, 32)}
    for file in (
        saved(tmp_path / "a", {**lora(), **embedding}),
        beside_peft(tmp_path / "b", {**lora(), **embedding}),
    ):
        with pytest.raises(AdapterError, match="embed_tokens"):
            convert_file(file, file.parent / "out")


def test_a_folder_for_another_base_is_refused_as_a_pickle_too(tmp_path: Path, base: Base) -> None:
    file = beside_peft(tmp_path / "mine", lora())
    (file.parent / "oneseek.json").write_text(
        json.dumps({"base_digest": "sha256:" + "1" * 64, "version": "v7"})
    )
    with pytest.raises(AdapterError, match=base.digest) as caught:
        import_pickle(Registry(tmp_path / "home"), file, base=base)
    assert (caught.value.field, caught.value.value) == ("base_digest", "sha256:" + "1" * 64)
