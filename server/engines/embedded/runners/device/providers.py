"""The devices that the embedded engine runs on, and the ONNX Runtime execution provider of each.

Does not import ONNX Runtime, so any module can import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from server.engines.embedded.model.plan import Dtype
    from server.engines.embedded.model.variants import VariantName

DeviceName = Literal["cpu", "directml", "webgpu", "windowsml"]
Hardware = Literal["gpu", "npu", "cpu"]
"""Kind of hardware that a provider registered at run time computes on: ONNX Runtime's name in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An execution provider of ONNX Runtime (its backend for one kind of device), with the properties that
    the engine needs.
    """

    name: DeviceName
    """Name of the device, as in `--device`."""
    ort: str
    """The provider's name in ONNX Runtime, such as CPUExecutionProvider. Empty for `windowsml` until a
    provider is found in Windows' catalogue.
    """
    memory: str
    """ONNX Runtime's name of the device's memory, for `OrtValue` and `IOBinding`."""
    distribution: str
    """Name of the pip package that contains the provider. Only one such package may be installed; each also
    supports the CPU.
    """
    variant: VariantName
    """Name of the graph variant that the provider runs: fused or portable."""
    dtypes: tuple[Dtype, ...]
    """Number formats in which the provider can compute; the first is the default."""
    hardware: Hardware | None = None
    """Kind of hardware of a provider that is registered at run time; None if the provider is built into ONNX
    Runtime.
    """

    @property
    def is_device(self) -> bool:
        """True for all devices except the CPU, whose logits are the reference for the other devices."""
        return self.name != "cpu"


_ALL = (
    Provider(
        name="windowsml",
        ort="",
        memory="cpu",
        distribution="onnxruntime-windowsml",
        variant="portable",
        dtypes=("fp16", "fp32"),
    ),
    Provider(
        name="directml",
        ort="DmlExecutionProvider",
        memory="dml",
        distribution="onnxruntime-windowsml",
        variant="portable",
        dtypes=("fp16", "fp32"),
    ),
    Provider(
        name="webgpu",
        ort="WebGpuExecutionProvider",
        memory="webgpu",
        distribution="onnxruntime-webgpu",
        variant="portable",
        dtypes=("fp16", "fp32"),
    ),
    Provider(
        name="cpu",
        ort="CPUExecutionProvider",
        memory="cpu",
        distribution="onnxruntime",
        variant="fused",
        dtypes=("fp32",),
    ),
)
PROVIDERS: dict[DeviceName, Provider] = {provider.name: provider for provider in _ALL}
"""Execution providers by device name, in the order in which `--device auto` tries them."""
