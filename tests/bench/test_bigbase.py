"""The whole measurement on a small base, without the rival."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from bench.bigbase import run


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_builds_starts_and_measures(tmp_path: Path) -> None:
    asked = argparse.Namespace(
        work=tmp_path,
        preset="5m",
        quantize="int4",
        llama_python=None,
        threads=1,
        rounds=1,
        prompt=16,
        tokens=100,
        context=128,
    )
    report = run(asked)
    assert set(report["starts"]) == {"first", "cached"}
    assert set(report["figures"]) == {"base", "en", "sv"}
    for row in report["figures"].values():
        assert row["prefill"] > 0
        assert row["decode"] > 0
    assert report["starts"]["first"]["peak_mib"] >= report["starts"]["cached"]["own_mib"] > 20
    assert not report["ratios to llama.cpp (median, least, most)"]
    assert list(tmp_path.glob("home-5m/graphs/*/fused-fp32-int4-*/model.onnx"))
