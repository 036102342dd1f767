"""Check that the versions in the registry have not changed since they were added: read and hash their files
again.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapters.errors import AdapterError
from adapters.lora.manifest import Adapter
from adapters.lora.weights import read_adapter
from adapters.registry.intake import Base
from adapters.registry.listing import VersionFolder


@dataclass(frozen=True, slots=True)
class VersionVerdict:
    """Result of checking one version in the registry."""

    entry: VersionFolder
    adapter: Adapter | None
    """The version's adapter. None if its files cannot be read as an adapter."""
    problem: str | None
    """The problem and its remedy. None if nothing is wrong."""
    fits: bool
    """True if the weights' numbers were checked against the base. A version for another base is only
    hashed.
    """


def verify_version(entry: VersionFolder, base: Base) -> VersionVerdict:
    """Read and hash the files of one version. Raises no error for a broken version: see `problem` of the
    result.
    """
    try:
        adapter = entry.read()
        if entry.recorded_digest is None and entry.outside is None:
            return VersionVerdict(
                entry,
                adapter,
                f"{entry.folder}: oneseek.json records no digest. Add the adapter again.",
                False,
            )
        fits = adapter.base_digest in (None, base.digest)
        if fits:
            read_adapter(entry.folder, base.shape, digest=adapter.digest)
    except AdapterError as problem:
        return VersionVerdict(entry, None, str(problem), False)
    return VersionVerdict(entry, adapter, None, fits)
