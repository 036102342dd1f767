"""Whether versions in the registry are still what was added: files are read and hashed again."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.errors import AdapterError
from adapters.lora.manifest import Adapter
from adapters.lora.weights import read_adapter
from adapters.registry.intake import Base
from adapters.registry.listing import Held


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one version."""

    held: Held
    adapter: Adapter | None
    """None where its files could not be read as an adapter."""
    problem: str | None
    """What is wrong, and what helps; None where nothing is."""
    fits: bool
    """Whether its numbers were checked against the base; those for another base are only hashed."""


def verify(held: Held, base: Base) -> Verdict:
    """Read and hash the files of one version. Nothing is raised for a version that is broken."""
    try:
        adapter = held.read()
        if held.recorded_digest is None:
            return Verdict(
                held, adapter, f"{held.folder}: oneseek.json records no digest. Add it again.", False
            )
        fits = adapter.base_digest in (None, base.digest)
        if fits:
            read_adapter(held.folder, base.shape, digest=adapter.digest)
    except AdapterError as problem:
        return Verdict(held, None, str(problem), False)
    return Verdict(held, adapter, None, fits)
