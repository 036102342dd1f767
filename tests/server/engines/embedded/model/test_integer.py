"""Integer products: what they promise of exactness, and of each token's independence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from server.engines.embedded.model.cache import prepare
from server.engines.embedded.model.integer import PROBE_FILE, exact_products, probe_model
from server.engines.embedded.runners.cpu.runner import CpuRunner
from server.engines.embedded.runners.protocol import DecodeRow

DIGEST = "sha256:" + "1" * 64
PROMPTS = [[5, 9, 200, 31, 7], [400, 8], [77, 12, 90, 4, 33, 2, 68]]


def test_the_probe_on_disk_is_the_one_that_the_code_makes() -> None:
    assert PROBE_FILE.read_bytes() == probe_model()


@pytest.fixture
def open_runner(tiny_base: Path, tmp_path: Path) -> Callable[[str], CpuRunner]:
    def make(quantize: str) -> CpuRunner:
        return CpuRunner(prepare(tiny_base, tmp_path, DIGEST, quantize), 4, 64, 2)

    return make


@pytest.mark.skipif(not exact_products(), reason="this CPU's 8-bit products overflow")
def test_a_token_does_not_depend_on_its_batch(open_runner: Callable[[str], CpuRunner]) -> None:
    """Integer sums have no order, so even quantised a row alone equals itself in company, to the last bit
    of what the integer products give; attention and norms are float32."""
    runner = open_runner("int8")
    for row, prompt in enumerate(PROMPTS):
        runner.prefill(row, 0, prompt, (), [])
    rows = [DecodeRow(row, 3 + row, len(prompt), ()) for row, prompt in enumerate(PROMPTS)]
    together = runner.decode(rows).copy()
    for index, row in enumerate(rows):
        runner.prefill(row.row, 0, PROMPTS[index], (), [])
        np.testing.assert_allclose(runner.decode([row])[0], together[index], atol=0.01)
