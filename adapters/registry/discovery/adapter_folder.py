"""One folder that may hold an adapter: the alias and version that its path suggests, and whether it can be
served.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from adapters import names
from adapters.bases import FoundBase, is_inside
from adapters.errors import AdapterError, BaseModelError, FileRefusedError
from adapters.files.hashes import HashCache
from adapters.lora.base_name import base_names, check_base_name
from adapters.lora.config import CONFIG_FILE
from adapters.lora.manifest import (
    MANIFEST_FILE,
    Adapter,
    AdapterPlace,
    damaged_adapter,
    read_base_digest,
    read_fields,
    read_manifest,
)
from adapters.lora.shape_check import ModelShape
from adapters.lora.tensorfile import WEIGHTS_FILE
from adapters.registry.discovery.acceptance import CheckedNumbers
from adapters.registry.listing import VersionFolder
from adapters.registry.recovery import accepted_contents


@dataclass(frozen=True, slots=True)
class ServedBase:
    """The base that is served, and what an adapter must match to be served on it."""

    found: FoundBase
    digest: str | None = None
    """Digest of the base that adapters must fit. None: the digest is not compared."""
    shape: ModelShape | None = None
    """Sizes of the base. None for an architecture whose sizes are unknown; the engine checks the adapter
    then.
    """
    names: tuple[str, ...] = ()
    hashes: HashCache | None = None
    """Hashes computed before; see `read_manifest`. None: hash the weights of every adapter."""
    numbers: CheckedNumbers = field(default_factory=lambda: CheckedNumbers(None))

    @classmethod
    def read(
        cls,
        found: FoundBase,
        digest: str | None = None,
        hashes: HashCache | None = None,
        numbers: CheckedNumbers | None = None,
    ) -> ServedBase:
        """Read the base's sizes and names. `numbers` remembers which adapters were checked before."""
        try:
            shape = ModelShape.read(found.path)
        except BaseModelError:
            shape = None
        known = base_names(found.path, found.name)
        return cls(found, digest, shape, known, hashes, numbers or CheckedNumbers(None))


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """A folder in PEFT layout, the alias and version that its path suggests, and the folder that its links
    may not lead out of.
    """

    folder: Path
    root: Path
    alias: str | None = None
    version: str | None = None
    recorded_first: bool = False
    """True if the alias and version that the adapter itself records take precedence over those suggested by
    its path.
    """
    accepted: VersionFolder | None = None
    """The version that the registry has recorded for this folder, inside or outside of `registry/`. None if
    there is none.
    """
    place: AdapterPlace = "registry"
    pointed: bool = False
    """True if the registry records that a version is in this folder."""
    blobs: Path | None = None
    """A second folder that links in this one may lead to: Hugging Face's cache keeps the files there, and
    only links here.
    """

    def is_among(self, adapters: Iterable[Adapter]) -> bool:
        """True if one of `adapters` is the version that this folder held when the server accepted it."""
        entry = self.accepted
        return entry is not None and any(entry.is_named(one.alias, one.version) for one in adapters)

    def damaged(self, base: ServedBase, problem: AdapterError) -> Adapter | None:
        """Return the version that the server accepted from this folder, with its `problem`. None if there is
        none, or it is for another base.
        """
        entry = self.accepted
        if entry is None or self._of_another_base(base):
            return None
        if entry.outside is not None:
            told, language = problem.public, entry.outside.language
            return damaged_adapter(
                entry.folder, entry.alias, entry.version, told, language, place=entry.place
            )
        try:
            names.alias(entry.alias)
            names.version(entry.version)
        except ValueError:
            return None
        known = accepted_contents(self.root.parent / "ledger", entry.full_name)
        if not self.pointed and known.digest is None and entry.recorded_digest is None:
            return None  # put there by hand, and never whole
        return damaged_adapter(
            entry.folder,
            entry.alias,
            entry.version,
            problem.public,
            entry.language or known.language or self._language_of_others(),
            imported=entry.imported or known.imported,
        )

    def _language_of_others(self) -> str | None:
        """Return the language of the other versions of its alias, if they all have one and the same."""
        others = {VersionFolder.of(path).language for path in self.folder.parent.glob("*") if path.is_dir()}
        return next(iter(others - {None})) if len(others - {None}) == 1 else None

    def _of_another_base(self, base: ServedBase) -> bool:
        """True if the folder's manifest is intact and names another base, by digest and by name."""
        if self.accepted is not None and self.accepted.outside is not None:
            return False  # nothing is pointed at for another base than the one it was served on
        try:
            fields = read_fields(self.folder)
            recorded = read_base_digest(self.folder, fields)
        except AdapterError:
            return False
        return recorded not in (None, base.digest) and fields.get("base") not in base.names

    def read(self, base: ServedBase) -> Adapter:
        """Read and check the adapter. Raises `AdapterError`, also if it is for another base or does
        not fit.
        """
        if self.accepted is not None and not self.folder.is_dir():
            return self.accepted.read()  # which says that it is missing
        self._check_links()
        try:
            recorded = read_fields(self.folder)
            alias = None if self.recorded_first and "alias" in recorded else self.alias
            version = None if self.recorded_first and "version" in recorded else self.version
            self._check_recorded_base(base, recorded)
            adapter = read_manifest(
                self.folder,
                alias=alias,
                version=version,
                hashes=base.hashes,
                shape=base.shape,
                fields=recorded,
            )
            if self.accepted is not None:
                known = recorded.get("digest") is not None
                _check_accepted(self.accepted, adapter, self.root.parent / "ledger", digest_recorded=known)
            if adapter.base_digest is None:
                check_base_name(self.folder, base.names)
            if base.shape is not None and not self._taken_in(adapter):
                base.numbers.check(self.folder, base.shape, adapter.digest, base.hashes)
            return replace(adapter, place=self.place)
        except FileRefusedError:
            raise
        except ValueError as problem:
            raise AdapterError(self.folder, str(problem), "Rename the folder.") from problem

    def _check_links(self) -> None:
        """Raise `AdapterError` for a link that leads outside the allowed folders."""
        roots = (self.root, self.blobs) if self.blobs is not None else (self.root,)
        files = [self.folder / name for name in (CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE)]
        # A file that is no link lies where its folder does.
        for file in (self.folder, *filter(Path.is_symlink, files)):
            if _lies_below(file, self.root):
                continue
            if file.exists() and not any(is_inside(file, root) for root in roots):
                raise AdapterError(
                    file,
                    "the file is a link that leads outside the folder in which it was found",
                    "Copy the linked file into the folder, or name its folder in the setting adapters.",
                )

    def _taken_in(self, adapter: Adapter) -> bool:
        """True if the registry recorded digests of the adapter and its base, so its numbers were checked
        then.
        """
        entry = self.accepted
        recorded = entry is not None and entry.outside is None and entry.recorded_digest is not None
        return recorded and adapter.base_digest is not None

    def _check_recorded_base(self, base: ServedBase, fields: Mapping[str, object]) -> None:
        """Raise `AdapterError` if the fields of its oneseek.json record another base."""
        recorded = read_base_digest(self.folder, fields)
        if base.digest is None or recorded in (None, base.digest):
            return
        raise AdapterError(
            self.folder / MANIFEST_FILE,
            f"the adapter was made for another base; this base is {base.found.name}, {base.digest}",
            "Name the adapter's own base with --base-model, or train the adapter again for this base."
            if self.accepted is None
            else "Serve the base that the adapter was made for, or promote another version.",
            field="base_digest",
            value=recorded,
        )


def _lies_below(path: Path, root: Path) -> bool:
    """True if no part of `path` below `root` is a link."""
    while path != root and path != path.parent:
        if path.is_symlink():
            return False
        path = path.parent
    return path == root


def _check_accepted(entry: VersionFolder, adapter: Adapter, ledger: Path, *, digest_recorded: bool) -> None:
    """Raise `AdapterError` if the files are valid but differ from those that the server accepted."""
    if adapter.full_name.lower() != entry.full_name.lower():
        raise AdapterError(
            entry.folder / MANIFEST_FILE,
            f"the file names {adapter.full_name}, but the adapter was accepted as {entry.full_name}",
            "Restore the file.",
        )
    if not digest_recorded and entry.outside is None:
        told = accepted_contents(ledger, adapter.full_name).digest
        if told not in (None, adapter.digest):
            raise AdapterError(
                entry.folder / MANIFEST_FILE,
                f"the file records no digest; the adapter's files have {adapter.digest}, but the ledger "
                f"names {told}",
                "Restore the files.",
            )
