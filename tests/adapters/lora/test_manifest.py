"""What an adapter's folder says of it, and in which order of trust."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.errors import AdapterError
from adapters.lora.digest import adapter_digest
from adapters.lora.manifest import Adapter, read_manifest

BASE = "sha256:" + "0" * 64


def test_a_plain_folder_is_named_by_its_name(make_adapter: Callable[..., Path]) -> None:
    folder = make_adapter("My Adapter")
    assert read_manifest(folder) == Adapter(
        alias="my-adapter",
        version="v1",
        digest=adapter_digest(folder),
        path=folder,
        rank=4,
        alpha=8,
        targets=("q_proj", "v_proj"),
    )


def test_a_folder_of_an_existing_installation(make_adapter: Callable[..., Path]) -> None:
    found = read_manifest(make_adapter("oneseek-7b-zero-v1.1-SV"))
    assert (found.full_name, found.language) == ("oneseek-7b-zero-sv@v1.1", "sv")


def test_what_is_recorded_goes_before_the_folder(make_adapter: Callable[..., Path]) -> None:
    manifest = {
        "alias": "Zero",
        "version": "v1.2",
        "language": "EN",
        "base_digest": BASE,
        "about": {"by": "me"},
        "rows": 74,
    }
    found = read_manifest(make_adapter("x-v9", manifest=manifest))
    assert (found.full_name, found.language, found.base_digest) == ("Zero@v1.2", "en", BASE)


def test_what_is_passed_goes_before_all(make_adapter: Callable[..., Path]) -> None:
    manifest = {"alias": "zero", "version": "v1.2", "language": "en"}
    found = read_manifest(make_adapter(manifest=manifest), alias="sv", version="v3", language="sv")
    assert (found.full_name, found.language) == ("sv@v3", "sv")


def test_a_name_is_passed_and_the_rest_is_told(make_adapter: Callable[..., Path]) -> None:
    found = read_manifest(make_adapter("zero-v1.1-SV"), alias="mine")
    assert (found.full_name, found.language) == ("mine@v1.1", "sv")
    assert read_manifest(make_adapter("base"), alias="mine").full_name == "mine@v1"


def test_the_rank_is_the_largest_in_use(make_adapter: Callable[..., Path]) -> None:
    config = {"r": 64, "rank_pattern": {"layers.1.self_attn.q_proj": 2, ".*": 4}}
    q = "base_model.model.model.layers.1.self_attn.q_proj"
    halves = {f"{q}.lora_A.weight": np.ones((2, 32)), f"{q}.lora_B.weight": np.ones((32, 2))}
    tensors = {name: value.astype(np.float32) for name, value in halves.items()}
    assert read_manifest(make_adapter(config=config, tensors=tensors)).rank == 4


def test_a_recorded_digest_is_checked(make_adapter: Callable[..., Path]) -> None:
    digest = adapter_digest(make_adapter("a"))
    assert read_manifest(make_adapter("b", manifest={"digest": digest})).digest == digest
    other = adapter_digest(make_adapter("d", config={"lora_alpha": 9}))
    with pytest.raises(AdapterError, match=other) as caught:
        read_manifest(make_adapter("c", config={"lora_alpha": 9}, manifest={"digest": digest}))
    assert (caught.value.field, caught.value.value) == ("digest", digest)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ({"alias": "base"}, "alias = 'base':"),
        ({"alias": "a@b"}, "alias = 'a@b':"),
        ({"alias": 3}, "alias = 3:"),
        ({"version": "latest"}, "version = 'latest':"),
        ({"language": "swedish"}, "language = 'swedish'"),
        ({"digest": "abc"}, "digest = 'abc'"),
        ({"base_digest": "sha256:" + "A" * 64}, "base_digest"),
        ({"langauge": "sv"}, "langauge = 'sv':"),
    ],
)
def test_a_bad_field_is_refused_by_name(
    manifest: Mapping[str, Any], said: str, make_adapter: Callable[..., Path]
) -> None:
    with pytest.raises(AdapterError) as caught:
        read_manifest(make_adapter(manifest=manifest))
    assert f"oneseek.json: {said}" in str(caught.value)


def test_a_name_that_is_passed_is_the_callers_mistake(make_adapter: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="'a/b'"):
        read_manifest(make_adapter(), alias="a/b")


@pytest.mark.parametrize("name", ["base", "___", "AUTO"])
def test_a_folder_whose_name_is_no_alias_asks_for_one(name: str, make_adapter: Callable[..., Path]) -> None:
    with pytest.raises(AdapterError, match="NAME=PATH"):
        read_manifest(make_adapter(name))


def test_wrong_tensors_are_refused_at_once(make_adapter: Callable[..., Path]) -> None:
    with pytest.raises(AdapterError, match="surprise"):
        read_manifest(make_adapter(tensors={"surprise": np.zeros(1)}))


def test_examples_are_read_and_are_no_part_of_the_digest(make_adapter: Callable[..., Path]) -> None:
    folder = make_adapter("kitchen-v1", manifest={"examples": ["how do I cook rice"]})
    found = read_manifest(folder)
    assert found.examples == ("how do I cook rice",)
    assert found.digest == read_manifest(folder, fields={}).digest


@pytest.mark.parametrize("examples", ["how", [], [1], [" "], ["x" * 501], ["x"] * 501])
def test_examples_that_are_no_questions_are_refused(
    make_adapter: Callable[..., Path], examples: object
) -> None:
    with pytest.raises(AdapterError) as refused:
        read_manifest(make_adapter("kitchen-v1", manifest={"examples": examples}))
    assert "examples" in str(refused.value)
