"""What is known of one adapter version. Reads no weights; `adapters.weights` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One immutable version of a LoRA in PEFT layout, bound to one base."""

    alias: str
    """Public name, such as `oneseek-7b-zero-sv`."""
    version: str
    """Such as `v1.1`."""
    digest: str
    """`sha256:` and 64 hex digits over the canonical files; the identity below the HTTP surface."""
    path: Path
    """Folder with `adapter_config.json` and `adapter_model.safetensors`."""
    rank: int
    alpha: float
    targets: tuple[str, ...]
    """Target modules, sorted, such as `("q_proj", "v_proj")`."""
    language: str | None = None
    """ISO 639-1 code that routing maps to this adapter's alias."""
    base_digest: str | None = None
    """The base it was made for; None where its maker did not record one."""

    @property
    def full_name(self) -> str:
        """`alias@version`."""
        return f"{self.alias}@{self.version}"
