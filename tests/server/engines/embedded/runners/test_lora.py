"""Packs: what they hold, and which one is chosen for a batch."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.lora.families import LLAMA as LORA
from adapters.lora.weights import AdapterWeights, LowRank
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.families.llama import LLAMA
from server.engines.embedded.model.rope import Rope
from server.engines.embedded.runners.lora import MAX_MIXES, AdapterStore, Pack

CONFIG = ModelConfig(
    family=LLAMA,
    hidden=32,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=16,
    intermediate=48,
    vocabulary=64,
    context=64,
    norm_epsilon=1e-5,
    rope=Rope(1e4),
    tied_head=False,
)


def adapter(ranks: dict[tuple[int, str], int], seed: int = 0, scaling: float = 2.0) -> AdapterWeights:
    rng = np.random.default_rng(seed)
    modules: dict[tuple[int, str], LowRank] = {}
    for (layer, module), rank in ranks.items():
        out, features = CONFIG.shapes[module]
        a = rng.standard_normal((rank, features), dtype=np.float32)
        b = rng.standard_normal((out, rank), dtype=np.float32)
        modules[layer, module] = LowRank(a, b, scaling)
    return AdapterWeights(LORA, modules)


def everywhere(rank: int, modules: Iterable[str], seed: int = 0) -> AdapterWeights:
    return adapter({(layer, module): rank for layer in (0, 1) for module in modules}, seed)


def zeros(a: tuple[int, int], b: tuple[int, int]) -> LowRank:
    return LowRank(np.zeros(a, np.float32), np.zeros(b, np.float32), 1.0)


RANKS = st.dictionaries(
    st.tuples(st.integers(0, 1), st.sampled_from(LORA.names)), st.integers(1, 4), min_size=1
)


@given(
    ranks=st.lists(RANKS, min_size=1, max_size=3), weights=st.lists(st.floats(-2, 2), min_size=3, max_size=3)
)
@settings(max_examples=40, deadline=None)
def test_a_pack_computes_the_sum_of_its_adapters_updates(
    ranks: list[dict[tuple[int, str], int]], weights: list[float]
) -> None:
    adapters = {f"a{i}": adapter(each, seed=i, scaling=0.5 + i) for i, each in enumerate(ranks)}
    pack = Pack(CONFIG, adapters)
    adapter_mix = tuple(zip(adapters, weights, strict=False))
    masks = pack.masks([(), adapter_mix])
    for group, modules in CONFIG.groups.items():
        if not pack.widths[group]:
            continue
        assert not masks[group][0].any()
        for layer in (0, 1):
            a, b = pack.arrays[f"lora_a.{group}.{layer}"], pack.arrays[f"lora_b.{group}.{layer}"]
            found = (a * masks[group][1]) @ b
            expected = np.zeros_like(found)
            start = 0
            for module in modules:
                out = CONFIG.shapes[module][0]
                for name, weight in adapter_mix:
                    low = adapters[name].modules.get((layer, module))
                    if low is not None:
                        expected[:, start : start + out] += weight * low.scaling * (low.b @ low.a).T
                start += out
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_only_targeted_groups_have_columns() -> None:
    pack = Pack(CONFIG, {"a": everywhere(4, ["q_proj", "v_proj"]), "b": everywhere(2, ["q_proj", "o_proj"])})
    assert pack.widths == {"qkv": 8 + 2, "o": 2, "gate": 0, "up": 0, "down": 0}
    assert pack.rank == 12
    assert Pack(CONFIG, {}).rank == 0


def test_cost_follows_the_batch_not_what_is_resident() -> None:
    store = AdapterStore(CONFIG, 1 << 30)
    for i in range(20):
        store.load(f"a{i}", everywhere(4, ["q_proj"], i))
    assert store.pack(frozenset(), store.base).rank == 0
    assert store.pack(frozenset({"a3"}), store.base).rank == 4


def test_the_current_pack_is_kept_while_it_is_at_most_twice_as_wide_as_needed() -> None:
    store = AdapterStore(CONFIG, 1 << 30)
    for name in "abc":
        store.load(name, everywhere(4, ["q_proj"]))
    wide = store.pack(frozenset("abc"), store.base)
    assert store.pack(frozenset("ab"), wide) is wide
    narrow = store.pack(frozenset("a"), wide)
    assert narrow.digests == frozenset("a")
    assert store.pack(frozenset(), wide) is store.base
    assert store.pack(frozenset("abc"), narrow) is wide


def test_packs_are_bounded_in_bytes_and_the_latest_stays() -> None:
    store = AdapterStore(CONFIG, 1)
    for name in "ab":
        store.load(name, everywhere(4, ["q_proj"]))
    first = store.pack(frozenset("a"), store.base)
    second = store.pack(frozenset("b"), store.base)
    assert not store.holds(first)
    assert store.holds(second)
    assert second.size > 1


def test_unloading_forgets_every_pack_that_holds_the_adapter() -> None:
    store = AdapterStore(CONFIG, 1 << 30)
    for name in "ab":
        store.load(name, everywhere(4, ["q_proj"]))
    both, one = store.pack(frozenset("ab"), store.base), store.pack(frozenset("b"), store.base)
    store.unload("a")
    assert not store.holds(both)
    assert store.holds(one)
    assert store.holds(store.base)
    with pytest.raises(ValueError, match="adapter a "):
        store.pack(frozenset("ab"), store.base)
    with pytest.raises(ValueError, match="adapter a "):
        store.unload("a")


def test_masks_of_ever_new_blends_do_not_pile_up() -> None:
    pack = Pack(CONFIG, {"a": everywhere(1, ["q_proj"])})
    for i in range(3):
        mixes = [(("a", i + j / 1000),) for j in range(MAX_MIXES)]
        masks = pack.masks(mixes)
        np.testing.assert_allclose(
            masks["qkv"][:, 0, 0], [adapter_mix[0][1] for adapter_mix in mixes], rtol=1e-6
        )
    assert len(pack.masks([()])["qkv"]) == 1


@pytest.mark.parametrize(
    ("low", "key", "message"),
    [
        (
            LowRank(np.zeros((2, 32), np.float32), np.zeros((32, 2), np.float32), 1.0),
            (2, "q_proj"),
            "layer 2",
        ),
        (
            LowRank(np.zeros((2, 32), np.float32), np.zeros((32, 2), np.float32), 1.0),
            (0, "lm_head"),
            "lm_head",
        ),
        (LowRank(np.zeros((2, 31), np.float32), np.zeros((32, 2), np.float32), 1.0), (0, "q_proj"), "31"),
        (LowRank(np.zeros((2, 32), np.float32), np.zeros((32, 2), np.float32), 1.0), (0, "k_proj"), "k_proj"),
        (LowRank(np.zeros((2, 32), np.float32), np.zeros((32, 3), np.float32), 1.0), (0, "q_proj"), "32, 3"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    low: LowRank, key: tuple[int, str], message: str
) -> None:
    store = AdapterStore(CONFIG, 1 << 30)
    with pytest.raises(ValueError, match=message):
        store.load("a", AdapterWeights(LORA, {key: low}))
    with pytest.raises(ValueError, match="adapter "):
        store.pack(frozenset("a"), store.base)
