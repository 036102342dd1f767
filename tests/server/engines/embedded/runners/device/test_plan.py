"""What is admitted on a device fits, whatever it grows to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engines.embedded.runners.available import format_bytes
from server.engines.embedded.runners.device.plan import device_budget, device_bytes, device_limits, row_bytes
from server.engines.embedded.scheduling.limits import SchedulerLimits
from tests.server.engines.embedded.model.test_decoder_static import CONFIG

ROW = row_bytes(CONFIG, 128, "fp16")


def limits(
    kv_bytes: int | None, *, prefix: bool = True, seqs: int = 32, tokens: int | None = None
) -> SchedulerLimits:
    return device_limits(
        CONFIG,
        "fp16",
        context=128,
        max_num_seqs=seqs,
        max_num_batched_tokens=64,
        prefill_chunk=64,
        prefix_caching=prefix,
        kv_bytes=kv_bytes,
        kv_tokens=tokens,
    )


def test_a_row_is_as_large_as_its_keys_and_values() -> None:
    # 2 layers, keys and values, 2 KV heads of 16, 144 positions (128, one to spare, in sixteens), 2 bytes.
    assert ROW == 2 * 2 * 2 * 16 * 144 * 2
    assert row_bytes(CONFIG, 128, "fp32") == 2 * ROW


@given(budget=st.integers(4 * ROW, 200 * ROW), prefix=st.booleans(), seqs=st.integers(1, 40))
def test_what_is_admitted_fits_the_budget(budget: int, prefix: bool, seqs: int) -> None:
    found = limits(budget, prefix=prefix, seqs=seqs)
    assert device_bytes(found.max_num_seqs, found.rows, ROW) <= budget
    assert 1 <= found.max_num_seqs <= seqs
    assert found.max_num_seqs <= found.rows <= found.max_num_seqs + (seqs if prefix else 0)
    assert found.kv_tokens == found.rows * 128


@given(
    context=st.integers(1, CONFIG.context),
    prefix=st.booleans(),
    seqs=st.integers(1, 4),
    budget=st.integers(4, 9),
)
def test_a_request_as_long_as_the_context_fits_whatever_its_length(
    context: int, prefix: bool, seqs: int, budget: int
) -> None:
    found = device_limits(
        CONFIG,
        "fp16",
        context=context,
        max_num_seqs=seqs,
        max_num_batched_tokens=64,
        prefill_chunk=64,
        prefix_caching=prefix,
        kv_bytes=budget * row_bytes(CONFIG, context, "fp16"),
        kv_tokens=None,
    )
    assert found.kv_capacity >= context


def test_a_budget_for_all_that_is_asked_gives_it() -> None:
    found = limits(None)
    assert (found.max_num_seqs, found.rows) == (32, 64)
    assert limits(None, prefix=False).rows == 32


def test_a_budget_that_holds_no_row_is_refused_with_what_would() -> None:
    with pytest.raises(ValueError, match=f"{4 * ROW}.*max_model_len"):
        limits(4 * ROW - 1)


def test_a_budget_in_tokens_leaves_the_rows_alone() -> None:
    found = limits(1, tokens=96)
    assert (found.max_num_seqs, found.rows, found.kv_tokens) == (32, 64, 96)


def test_what_a_device_is_to_hold_is_told_and_what_is_too_much_too() -> None:
    bounds = device_limits(
        CONFIG,
        "fp16",
        context=CONFIG.context,
        max_num_seqs=4,
        max_num_batched_tokens=64,
        prefill_chunk=64,
        prefix_caching=True,
        kv_bytes=1 << 30,
        kv_tokens=None,
    )
    row = row_bytes(CONFIG, CONFIG.context, "fp16")
    kept, weights = device_bytes(4, bounds.rows, row), 5 << 20
    head, *parts = device_budget(CONFIG, bounds, "fp16", weights, weights + kept)
    assert format_bytes(weights + kept) in head
    assert [part.split()[0] for part in parts] == ["weights", "keys"]
    assert "unknown" in device_budget(CONFIG, bounds, "fp16", weights, None)[0]
    small = device_budget(CONFIG, bounds, "fp16", weights, weights + kept - 1)
    assert small[-1].endswith(f"kv_cache_memory {(kept - 1) >> 20}MiB")
    assert "try quantize" in device_budget(CONFIG, bounds, "fp16", weights, weights)[-1]
