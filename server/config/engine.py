"""The `engine:` section: what runs a base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

WITHOUT_OPTIONS = frozenset({"embedded"})
"""Engines that have no options of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The `engine:` section: what runs the base, and what only that engine understands."""

    kind: Literal["auto", "embedded", "vllm"] = "auto"
    """`embedded` (ONNX Runtime), `vllm` (CUDA), or `auto`: vllm where it is installed and sees a GPU."""
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    """vLLM's own options by its own names, such as tensor_parallel_size=2; in the file, under engine."""
