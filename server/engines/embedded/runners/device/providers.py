"""The devices that the embedded engine runs on, with everything that is specific to each of them.

Does not import ONNX Runtime, so it can be used anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from server.engines.embedded.model.plan import Dtype
    from server.engines.embedded.model.variants import VariantName

DeviceName = Literal["cpu", "directml", "webgpu", "windowsml"]
Hardware = Literal["gpu", "npu", "cpu"]
"""Kind of device that a registered provider runs on: ONNX Runtime's name in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An execution provider of ONNX Runtime, as this project uses it."""

    name: DeviceName
    """Name of the device for `--device`."""
    ort: str
    """Name in `InferenceSession(providers=...)` and `get_providers()`; empty until found in a catalogue."""
    memory: str
    """Name of the device's memory in `OrtValue` and `IOBinding`."""
    distribution: str
    """Name of the package that contains the provider. Install only one such package; each can run on the
    CPU too.
    """
    variant: VariantName
    """Name of the graph variant that it runs."""
    dtypes: tuple[Dtype, ...]
    """Number formats that the provider's graphs can compute in; the first is the default."""
    hardware: Hardware | None = None
    """Kind of device of a provider registered at run time; None if the provider is part of the flavour."""

    @property
    def is_device(self) -> bool:
        """True unless this is the CPU, whose logits are the reference for the others."""
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
"""Providers by name, in the order in which `--device auto` tries them."""
