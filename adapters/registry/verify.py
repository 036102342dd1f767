"""Whether versions in the registry are still what was added: files are read and hashed again."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.errors import AdapterError
from adapters.lora.manifest import Adapter
from adapters.lora.weights import read_adapter
from adapters.registry.intake import Base
from adapters.registry.listing import VersionFolder


@dataclass(frozen=True, slots=True)
class VersionVerdict:
    """What became of one version."""

    entry: VersionFolder
    adapter: Adapter | None
    """None where its files could not be read as an adapter."""
    problem: str | None
    """What is wrong, and what helps; None where nothing is."""
    fits: bool
    """Whether its numbers were checked against the base; those for another base are only hashed."""


def verify_version(entry: VersionFolder, base: Base) -> VersionVerdict:
    """Read and hash the files of one version. Nothing is raised for a version that is broken."""
    try:
        adapter = entry.read()
        if entry.recorded_digest is None and entry.outside is None:
            return VersionVerdict(
                entry, adapter, f"{entry.folder}: oneseek.json records no digest. Add it again.", False
            )
        fits = adapter.base_digest in (None, base.digest)
        if fits:
            read_adapter(entry.folder, base.shape, digest=adapter.digest)
    except AdapterError as problem:
        return VersionVerdict(entry, None, str(problem), False)
    return VersionVerdict(entry, adapter, None, fits)
