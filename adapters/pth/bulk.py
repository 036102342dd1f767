"""Import many adapters into the registry, one by one. Each adapter is added as a version, or refused with a
reason.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters import names
from adapters.errors import AdapterError, FileRefusedError, RegistryError, passing_cause
from adapters.lora.digest import file_digest
from adapters.lora.manifest import ORIGIN, read_fields
from adapters.lora.tensorfile import WEIGHTS_FILE
from adapters.pth.conversion import convert_file, torch_is_installed
from adapters.pth.folder import ImportCandidate
from adapters.pth.importer import ImportResult, import_pickle
from adapters.registry.discovery.imported import ImportedFiles
from adapters.registry.intake import Base, check_adapter
from adapters.registry.registry import AddResult, Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesGiven:
    """Names, language and LoRA scale (alpha) that the user gives for an import. They take precedence over the
    files; None means not given.
    """

    alias: str | None = None
    version: str | None = None
    alpha: float | None = None
    language: Callable[[ImportCandidate], str | None] = lambda candidate: None
    """A function that returns the language of an adapter to import, or None for no language."""


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """The outcome for one adapter of an import: the new version, or the reason for refusing the adapter."""

    candidate: ImportCandidate
    result: ImportResult | None = None
    problem: str | None = None


@dataclass(slots=True, kw_only=True)
class BulkImport:
    """Imports adapters into one registry. With `dry_run`, every adapter is converted and checked, but none is
    added.
    """

    registry: Registry
    base: Base
    given: NamesGiven = field(default_factory=NamesGiven)
    sources: Mapping[str, str] = field(default_factory=dict[str, str])
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further details for the ledger entry of each import. The imported versions' oneseek.json omits them."""
    cache: Path | None = None
    """Folder of the cache of file hashes."""
    dry_run: bool = False
    _planned: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    _standing: dict[str, str] = field(default_factory=dict[str, str])
    """Maps each adapter alias to the version that would be active after the import. Only a dry run
    uses it.
    """
    """`_planned` maps alias and version, in lower case, to the digest of what a dry run would add."""

    def run(self, candidates: Iterable[ImportCandidate]) -> Iterator[ImportOutcome]:
        """Yield the outcome of each adapter as soon as it is imported or refused. A refused adapter leaves no
        files.

        Raises an error that stops the whole import if torch is missing, or if the ledger or registry cannot
        be written. Adapters imported before stay, and the next import recognises them.
        """
        candidates = list(candidates)
        converted = next((one for one in candidates if one.converts), None)
        if converted is not None and not torch_is_installed():
            raise RegistryError(
                f"Reading {converted.path.name} needs torch, which is not installed. Run make train "
                "or pip install 'oneseek[train]'. Nothing was imported."
            )
        for candidate in candidates:
            try:
                yield ImportOutcome(candidate, self._import(candidate))
            except ValueError as problem:
                if isinstance(problem, FileRefusedError) and not isinstance(problem, AdapterError):
                    raise  # it is not this file that is at fault
                if passing_cause(problem) is not None:
                    raise
                yield ImportOutcome(candidate, problem=str(problem))

    def _import(self, candidate: ImportCandidate) -> ImportResult:
        known = self._known(candidate)
        if known is not None:
            return known
        given, language = self.given, self.given.language(candidate)
        if candidate.converts and not self.dry_run:
            return import_pickle(
                self.registry,
                candidate.path,
                base=self.base,
                alias=given.alias,
                version=given.version,
                language=language,
                alpha=given.alpha,
                sources=self.sources,
                details=self.details,
            )
        if candidate.converts:
            return self._plan_conversion(candidate.path, language)
        named: dict[str, Any] = {"alias": given.alias, "version": given.version, "language": language}
        notes = _origin(candidate.path)
        if self.dry_run:
            return ImportResult(self._plan(candidate.path, notes=notes, **named), ())
        added = self.registry.add(
            candidate.path,
            base=self.base,
            **named,
            notes=notes,
            action="import",
            sources=self.sources,
            details=self.details,
        )
        return ImportResult(added, ())

    def _known(self, candidate: ImportCandidate) -> ImportResult | None:
        """Return the version that an earlier import made from this same file, if its files can still be read.
        None otherwise.
        """
        if not candidate.converts:
            return None
        listing = self.registry.listing()
        entry = ImportedFiles(listing.entries).version_of(candidate.path, self.cache)
        if entry is None:
            return None
        try:
            stands = listing.active_on(entry.alias, self.base.digest) or entry
            added = AddResult(entry.read(), False, listing.is_active(entry), stands.full_name)
            return ImportResult(added, ())
        except AdapterError:
            return None

    def _plan_conversion(self, file: Path, language: str | None) -> ImportResult:
        given = self.given
        with tempfile.TemporaryDirectory(prefix="oneseek-import-") as place:
            found = convert_file(file, Path(place) / "adapter", alpha=given.alpha)
            planned = self._plan(
                found.folder,
                alias=given.alias or found.name.alias,
                version=given.version or (found.name.version if found.tells_version else None),
                language=language or found.name.language,
                notes=found.notes,
            )
        return ImportResult(planned, found.warnings)

    def _plan(self, folder: Path, **named: Any) -> AddResult:
        """Return the result that `Registry.add` would return for `folder`, without adding it. Raises the same
        errors.
        """
        intake = check_adapter(folder, self.base, **named)
        adapter = intake.source
        listing = self.registry.listing()
        held = {
            entry.version.lower(): entry.recorded_digest or "" for entry in listing.versions(adapter.alias)
        }
        alias = adapter.alias.lower()
        held |= {version: digest for (of, version), digest in self._planned.items() if of == alias}
        same = next((version for version, digest in held.items() if digest == adapter.digest), None)
        version = intake.given_version or same or names.next_version(held)
        adapter = intake.with_version(version).source
        present = held.get(version.lower())
        if present not in (None, adapter.digest):
            reason = f"{adapter.full_name} exists and holds {present}; {folder} holds {adapter.digest}"
            raise RegistryError(
                f"{reason}. A version in the registry never changes: choose another version with --version."
            )
        self._planned[alias, version.lower()] = adapter.digest
        before = listing.active_on(adapter.alias, self.base.digest)
        stands = self._standing.setdefault(alias, before.full_name if before else adapter.full_name)
        return AddResult(adapter, present is None, stands == adapter.full_name, stands, intake.base_recorded)


def _origin(folder: Path) -> dict[str, Any] | None:
    """Return the origin to record for a folder in PEFT format without oneseek.json: the folder's name and the
    digest of its weights. None for other folders.
    """
    if read_fields(folder) or not (folder / WEIGHTS_FILE).is_file():
        return None
    name = folder.absolute().name
    return {ORIGIN: {"file": name, "digest": f"sha256:{file_digest(folder / WEIGHTS_FILE)}"}}
