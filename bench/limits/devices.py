"""The memory bandwidth, arithmetic rate and memory size of each GPU, as its vendor states them.

Three cards have no datasheet with a dense 16-bit rate. Their rate is computed from other figures of the
vendor:

- RTX 3060: 28 multiprocessors with 4 tensor cores, each of which does 64 multiply-adds a clock with float32
  sums, at 1.777 GHz: 112 × 64 × 2 × 1.777 = 25.5 TFLOP/s. The same rule gives the 40.6 of the RTX 3070 (184
  cores, 1.725 GHz) in NVIDIA's GA102 whitepaper. 15 Gbit/s over 192 bits are 360 GB/s.
- Arc B580: Intel states 233 TOPS for 8 bits, which is 20 Xe cores at 2.85 GHz with 4,096 operations a clock
  each; half of it is the 16-bit rate. At 2.67 GHz, the clock that Intel lists, it would be 109 TFLOP/s. The
  larger figure keeps the limit from being too low. 19 Gbit/s over 192 bits are 456 GB/s.
- RX 7900 XTX: 61.4 TFLOP/s in float32 at 2.5 GHz, and twice that in half precision, as AMD states. 20 Gbit/s
  over 384 bits are 960 GB/s. Its Infinity Cache is not counted.

For a GPU that the table does not have, `find_device` returns `None`, and its limits are reported as unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TABLE_VERSION = 2
"""Version of the table `DEVICES`, stored in every result. Increase it when a figure in the table changes."""


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """A device, with the figures of its vendor's datasheet. For the CPU of this machine, the figures are
    measured.
    """

    name: str
    pattern: str
    """Regular expression for the whole name that `nvidia-smi` prints, without the leading `NVIDIA `. Empty
    for a GPU of another vendor.
    """
    bandwidth: float
    """Memory bandwidth in GB/s (10⁹ bytes per second)."""
    tflops: float
    """Peak dense arithmetic rate in TFLOP/s, for bfloat16 with float32 accumulation. For the T4, which lacks
    bfloat16, the rate is that of float16.
    """
    memory: float
    """Memory in GB, as the vendor states it."""
    source: str


DEVICES = (
    GpuSpec("H200 SXM", r"H200", 4800, 989, 141, "NVIDIA H200 datasheet: 1,979 with sparsity, 4.8 TB/s"),
    GpuSpec(
        "H200 NVL", r"H200 NVL", 4800, 835.5, 141, "NVIDIA H200 datasheet: 1,671 with sparsity, 4.8 TB/s"
    ),
    GpuSpec("H100 SXM", r"H100 80GB HBM3", 3350, 989, 80, "NVIDIA H100 datasheet: 1,979 sparse, 3.35 TB/s"),
    GpuSpec("H100 NVL", r"H100 NVL", 3900, 835.5, 94, "NVIDIA H100 datasheet: 1,671 sparse, 3.9 TB/s"),
    GpuSpec("H100 PCIe", r"H100 PCIe", 2000, 756, 80, "NVIDIA H100 PCIe product brief: 1,513 sparse, 2 TB/s"),
    GpuSpec("A100 80GB SXM", r"A100-SXM4-80GB", 2039, 312, 80, "NVIDIA A100 datasheet: 312, 2,039 GB/s"),
    GpuSpec(
        "A100 80GB PCIe",
        r"A100 80GB PCIe|A100-PCIE-80GB",
        1935,
        312,
        80,
        "NVIDIA A100 datasheet: 312, 1,935 GB/s",
    ),
    GpuSpec(
        "A100 40GB", r"A100-(SXM4|PCIE)-40GB", 1555, 312, 40, "NVIDIA A100 40GB datasheet: 312, 1,555 GB/s"
    ),
    GpuSpec("L40S", r"L40S", 864, 362, 48, "NVIDIA L40S datasheet: 362.05, 864 GB/s"),
    GpuSpec("L4", r"L4", 300, 121, 24, "NVIDIA L4 datasheet: 242 with sparsity, 300 GB/s"),
    GpuSpec(
        "RTX 4090", r"GeForce RTX 4090", 1008, 165.2, 24, "NVIDIA Ada whitepaper 2.1: 165.2 dense, 1,008 GB/s"
    ),
    GpuSpec(
        "RTX 3060",
        r"GeForce RTX 3060",
        360,
        25.5,
        12,
        "NVIDIA GA102 whitepaper 2.1: a tensor core multiplies and adds 64 times a clock (float32 sums); "
        "RTX 3060 12 GB: 112 cores at 1.777 GHz, 192 bits at 15 Gbit/s",
    ),
    GpuSpec(
        "Arc B580",
        "",
        456,
        116.5,
        12,
        "Intel Arc B580 specifications: 233 TOPS int8, and half of it in 16 bits; 456 GB/s",
    ),
    GpuSpec(
        "RX 7900 XTX", "", 960, 122.8, 24, "AMD RX 7900 XTX specifications: 122.8 half precision, 960 GB/s"
    ),
    GpuSpec("T4", r"(Tesla )?T4", 320, 65, 16, "NVIDIA T4 datasheet: 65 float16, 320 GB/s"),
)

TARGETED = {
    "a100-80": "A100 80GB SXM",
    "h100": "H100 SXM",
    "h200": "H200 SXM",
    "l40s": "L40S",
    "l4": "L4",
    "rtx-4090": "RTX 4090",
    "rtx-3060": "RTX 3060",
    "arc-b580": "Arc B580",
    "rx-7900-xtx": "RX 7900 XTX",
}
"""Maps the name of a device on the command line to its name in `DEVICES`. OneSeek uses `arc-b580` and
`rx-7900-xtx` through DirectML.
"""


def find_device(name: str) -> GpuSpec | None:
    """Return the GPU that `nvidia-smi` calls `name`. None if the GPU is not in the table, or if the name is
    that of a MIG slice.
    """
    bare = name.removeprefix("NVIDIA ").strip()
    return next((one for one in DEVICES if one.pattern and re.fullmatch(one.pattern, bare)), None)


def targeted(key: str) -> GpuSpec:
    """Return the device whose name on the command line is `key`, such as `h100`. Raises `ValueError` if the
    name is unknown.
    """
    if key not in TARGETED:
        raise ValueError(f"the device {key!r} is unknown; use one of {', '.join(TARGETED)}, cpu, all")
    return next(device for device in DEVICES if device.name == TARGETED[key])
