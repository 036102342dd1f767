"""Adapters without files, and the registry in memory that serves them."""

from collections.abc import Iterable
from pathlib import Path

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters

BASE = "sha256:" + "b" * 64


def adapter(
    full_name: str, language: str | None = None, digest: str = "", base: str | None = BASE
) -> Adapter:
    alias, _, version = full_name.partition("@")
    return Adapter(
        alias=alias,
        version=version or "v1",
        digest=digest or f"sha256:{full_name.lower()}",
        path=Path("adapters") / alias / version,
        rank=8,
        alpha=32,
        targets=("q_proj", "v_proj"),
        language=language,
        base_digest=base,
    )


def served(*adapters: Adapter, active: Iterable[tuple[str, str]] = (), **languages: str) -> ServedAdapters:
    return ServedAdapters(
        adapters, base_digest=BASE, base_name="oneseek-mini", active=dict(active), languages=languages
    )


EN, EN2 = adapter("zero@v1.9", "en"), adapter("zero@v1.10", "en")
SV = adapter("Zero-SV@v1.1-SV", "sv")
