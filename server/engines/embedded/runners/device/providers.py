"""The devices that the embedded engine runs on: all that is particular to one of them.

It says what each is called and what it runs. It imports no part of ONNX Runtime: it may be asked anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from server.engines.embedded.model.plan import Dtype
    from server.engines.embedded.model.variants import VariantName

DeviceName = Literal["cpu", "directml", "webgpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An execution provider of ONNX Runtime, as this project uses it."""

    name: DeviceName
    """What `--device` calls it."""
    ort: str
    """What `InferenceSession(providers=...)` and `get_providers()` call it."""
    memory: str
    """What `OrtValue` and `IOBinding` call its memory."""
    distribution: str
    """What pip calls the package that brings it; an environment holds one of these. Each brings the CPU."""
    variant: VariantName
    """The variant of the graph that it runs."""
    dtypes: tuple[Dtype, ...]
    """What its graphs can compute in; the first is the default."""

    @property
    def is_device(self) -> bool:
        """True unless it is the CPU, which shares the machine's memory and whose logits judge the others."""
        return self.name != "cpu"


_ALL = (
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
"""By name, best first: the order in which `--device auto` tries what is present."""
