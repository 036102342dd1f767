from __future__ import annotations

from dataclasses import replace

import pytest

from bench.limits.bases import BASES, packed
from bench.limits.devices import GpuSpec, targeted
from bench.limits.serving import ServingLoad, conversations, serving_limit

MISTRAL = BASES["mistral-7b"]
H100 = targeted("h100")


def test_mistral_7b_on_an_h100_by_hand() -> None:
    # Layers: 32 · (2·4096·4096 + 2·1024·4096 + 3·14336·4096) = 6,979,321,856; head and embedding 131,072,000.
    assert MISTRAL.resident_bytes == 2 * (6_979_321_856 + 2 * 131_072_000)
    # An adapter of rank 16 on q and v: 32 · 16 · ((4096 + 4096) + (4096 + 1024)) = 6,815,744 weights.
    found = serving_limit(MISTRAL, H100, ServingLoad(streams=64, prompt=1536, answer=512))
    assert found.resident_bytes == MISTRAL.resident_bytes + 2 * 2 * 6_815_744
    # (72e9 - 14,510,194,688) / (2048 · 131,072) = 214.17.
    assert found.conversations == 214
    # (2 · 7,110,393,856 + 27,262,976 + 64 · 1792 · 131,072) / 3.35e12 = 29,280,436,224 / 3.35e12.
    assert found.step_seconds == pytest.approx(8.7404e-3, rel=1e-4)
    assert found.decode_tokens_per_second == pytest.approx(64 / 8.7404e-3, rel=1e-4)
    assert (found.binds, found.step_bound) == ("bandwidth", "bandwidth")
    # 2 · 1536 · (6,979,321,856 + 6,815,744) + 262,144,000 + 524,288 · 1536² / 2 = 2.2080e13 over 989e12.
    assert found.first_token_seconds == pytest.approx(22.326e-3, rel=1e-4)


def test_quantised_weights_by_hand() -> None:
    small = packed(MISTRAL, "int4")
    # 4 bits and a 16-bit scale for each 128; output matrix and embedding stay in 16 bits.
    assert small.resident_bytes == 6_979_321_856 * 0.515625 + 4 * 131_072_000
    assert packed(MISTRAL, "int8").step_bytes == 6_979_321_856 + 2 * 131_072_000
    assert small.kv_bytes == MISTRAL.kv_bytes
    assert packed(MISTRAL, "none", 4).kv_bytes == 2 * MISTRAL.kv_bytes
    with pytest.raises(ValueError, match="int5"):
        packed(MISTRAL, "int5")


def test_a_tied_embedding_is_held_once() -> None:
    assert replace(MISTRAL, tied=True).resident_bytes == MISTRAL.resident_bytes - 2 * 131_072_000


def test_conversations_by_hand() -> None:
    # 0.9 · 24e9 - 14,482,931,712 = 7,117,068,288; over 268,435,456 for each conversation: 26.5.
    assert conversations(MISTRAL, 24e9, 2048) == 26
    assert conversations(MISTRAL, 24e9, 2048, [10**9]) == 19
    assert conversations(MISTRAL, 12e9, 2048) == 0


def test_memory_binds_before_the_step() -> None:
    found = serving_limit(MISTRAL, targeted("l4"), ServingLoad(streams=64))
    assert (found.binds, found.streams, found.conversations) == ("memory", 26, 26)
    nothing = serving_limit(MISTRAL, targeted("rtx-3060"), ServingLoad())
    assert (nothing.conversations, nothing.tokens_per_second) == (0, 0)
    assert nothing.cost_per_million(1.0) is None


def test_cost_by_hand() -> None:
    found = serving_limit(MISTRAL, H100, ServingLoad())
    cost = found.cost_per_million(3.6)
    assert cost == pytest.approx(1000 / found.tokens_per_second)


def test_many_streams_meet_the_arithmetic() -> None:
    slow = GpuSpec("slow", "", bandwidth=10_000, tflops=1, memory=1000, source="")
    assert serving_limit(MISTRAL, slow, ServingLoad()).binds == "arithmetic"


@pytest.mark.parametrize("name", ["streams", "prompt", "answer", "rank"])
def test_a_load_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        replace(ServingLoad(), **{name: 0})


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ValueError, match="'mlp'"):
        serving_limit(MISTRAL, H100, ServingLoad(targets=("mlp",)))
