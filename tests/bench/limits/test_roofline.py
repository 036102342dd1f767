from __future__ import annotations

from dataclasses import asdict

import pytest

from bench.limits.devices import DEVICES, GpuSpec, find_device
from bench.limits.roofline import Model, decode_step, prefill, tokens_per_second
from bench.random_model import PRESETS

SMALL = Model(layers=2, hidden=8, heads=4, kv_heads=2, head_dim=2, inner=16, vocabulary=100)
# A layer: q 8·8, k 4·8, v 4·8, o 8·8, three of 16·8, 64 + 32 + 32 + 64 + 384 = 576; two 1152; head 800.
ROUND = GpuSpec("round", "-", bandwidth=1, tflops=1e-3, memory=1, source="1 GB/s and 1 GFLOP/s")


def test_small_sizes_by_hand() -> None:
    assert (SMALL.linear, SMALL.head) == (1152, 800)
    assert SMALL.kv_bytes == 2 * 2 * 2 * 2 * 2
    assert SMALL.attention_flops == 4 * 2 * 8
    assert SMALL.adapter(4, ["q_proj", "v_proj"]) == 2 * 4 * ((8 + 8) + (8 + 4))


def test_a_decode_step_by_hand() -> None:
    work = decode_step(SMALL, streams=3, context=10)
    assert work.bytes == 2 * 1952 + 3 * 10 * 32
    assert work.flops == 3 * (2 * 1952 + 64 * 10)
    assert work.seconds(ROUND) == pytest.approx(13632e-9)
    assert work.bound(ROUND) == "arithmetic"
    alone = decode_step(SMALL, streams=1, context=10)
    assert alone.seconds(ROUND) == pytest.approx(4544e-9)


def test_adapters_in_use_are_read_once_and_every_row_passes_one() -> None:
    plain, mixed = decode_step(SMALL, 3, 10), decode_step(SMALL, 3, 10, [100, 300])
    assert mixed.bytes - plain.bytes == 2 * 400
    assert mixed.flops - plain.flops == 3 * 2 * 200
    alone = decode_step(SMALL, 1, 10, [100, 300])
    assert alone.bytes - decode_step(SMALL, 1, 10).bytes == 2 * 200


def test_a_prefill_by_hand() -> None:
    work = prefill(SMALL, tokens=20, adapter=50)
    assert work.flops == 2 * 20 * 1202 + 2 * 800 + 64 * 200
    assert work.bytes == 2 * 2002 + 20 * 32


def test_the_most_tokens_per_second_by_hand() -> None:
    # One stream: a prompt of 4, then two steps one after another; all bound by arithmetic at 1 GFLOP/s.
    first = 2 * 4 * 1152 + 1600 + 64 * 8
    step = 2 * 1952 + 64 * 5.5
    assert tokens_per_second(SMALL, ROUND, 1, 4, 3) == pytest.approx(3 / ((first + 2 * step) / 1e9))
    # Slow memory: the steps' bytes hold instead, two steps of one stream and its prompt.
    slow = GpuSpec("slow", "-", bandwidth=1e-3, tflops=1, memory=1, source="1 MB/s")
    seconds = (2 * 1952 + 4 * 32) / 1e6 + 2 * (2 * 1952 + 5.5 * 32) / 1e6
    assert tokens_per_second(SMALL, slow, 1, 4, 3) == pytest.approx(3 / seconds)


def test_mistral_7b_on_an_h200() -> None:
    model = Model.read(asdict(PRESETS["7b"]))
    h200 = find_device("NVIDIA H200")
    assert h200 is not None
    # 7.248e9 parameters in all, of which 134e6 are embeddings that are only looked up.
    assert model.linear + 2 * model.head == pytest.approx(7.248e9, rel=1e-3)
    assert model.kv_bytes == 131072
    step = decode_step(model, 64, 576)
    # (7.114e9 · 2 + 64 · 576 · 131072) bytes / 4.8e12: 2.964 ms + 1.007 ms.
    assert step.seconds(h200) == pytest.approx(3.971e-3, rel=1e-3)
    assert step.bound(h200) == "bandwidth"
    assert prefill(model, 512).bound(h200) == "arithmetic"
    assert prefill(model, 512).seconds(h200) == pytest.approx(7.3e-3, rel=0.02)


@pytest.mark.parametrize(
    ("printed", "known"),
    [
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA H200 NVL", "H200 NVL"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB SXM"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB PCIe"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("NVIDIA L40", None),
        ("", None),
    ],
)
def test_devices_by_the_name_that_the_driver_prints(printed: str, known: str | None) -> None:
    device = find_device(printed)
    assert (device.name if device else None) == known


def test_every_device_has_its_figures_and_source() -> None:
    assert len({device.name for device in DEVICES}) == len(DEVICES)
    for device in DEVICES:
        assert min(device.bandwidth, device.tflops, device.memory) > 0
        assert device.source.startswith(("NVIDIA", "Intel", "AMD"))
        assert device.pattern or not device.source.startswith("NVIDIA")


def test_a_config_without_kv_heads_or_head_dim() -> None:
    config = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 4, "intermediate_size": 16}
    model = Model.read(config | {"vocab_size": 9}, width=4)
    assert (model.kv_heads, model.head_dim, model.width) == (4, 2, 4)
