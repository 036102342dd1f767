"""Finds the bases and adapters that the settings describe, and makes a catalogue of each base with its
adapters.

The commands `serve`, `route` and `adapters list` use this module. It reads and hashes files, but starts no
engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.bases import FoundBase
from adapters.errors import AdapterRejectedError
from adapters.home import check_home, mark_home
from adapters.lora.digest import base_digest
from adapters.lora.manifest import Adapter, damaged_adapter
from adapters.registry.folders import FolderRecord
from adapters.registry.listing import VersionFolder
from adapters.registry.pointers import AliasPointers, PointersError, active_versions
from adapters.registry.served import ServedAdapters
from server.config.each_base import BaseSettings, each_base
from server.config.settings import Settings
from server.config.values import SettingsError
from server.live.bases.languages import LanguageRouting, place_names
from server.live.bases.neighbours import Neighbour
from server.live.discovery import BaseFinds, discover

if TYPE_CHECKING:
    from adapters.ledger import Ledger
    from adapters.ledger.provenance import Provenance
    from adapters.registry.intake import Base
    from adapters.registry.registry import Registry
    from routing.route import Router


_LISTED = 8
"""Maximum number of adapters to name in one warning."""


@dataclass(frozen=True)
class Catalogue:
    """A base with its adapters and its routing, as the settings describe them."""

    own: BaseSettings
    """The settings that apply to this base."""
    base: FoundBase
    served: ServedAdapters
    routing: LanguageRouting
    """Makes the routers that choose an adapter by language, for all bases."""
    index: int = 0
    """The base's index among all bases; 0 is the default base."""
    configured: tuple[str, ...] = field(default=())
    """Full names (`alias@version`) of the adapters that the settings list."""
    notes: tuple[str, ...] = field(default=())
    """Log lines about adapters that were found but are not served, with the reason."""
    warnings: tuple[str, ...] = field(default=())
    """Log lines about adapters that are served but need attention."""
    retired: tuple[Adapter, ...] = ()
    """Retired adapters that were found outside the registry."""

    @property
    def outside(self) -> tuple[VersionFolder, ...]:
        """The versions that were found outside the registry's folder, served or retired."""
        return versions_outside((*self.served.adapters(), *self.retired), self.served.base_digest)

    @property
    def router(self) -> Router:
        """The router of this base, made at its first use. Raises the errors of `make_router`."""
        return self.routing.own(self.index)

    def make_router(self) -> Router:
        """Make the routers again for the registry's current languages, which takes a moment. Returns this
        base's router.

        Raises `SettingsError` for a configured language that cannot be detected.
        """
        return self.routing.renew(self.index)


def open_catalogue(settings: Settings, root: Path | None = None) -> Catalogue:
    """Return the default base with its adapters, as `open_catalogues` finds them."""
    return open_catalogues(settings, root)[0]


def open_catalogues(settings: Settings, root: Path | None = None) -> tuple[Catalogue, ...]:
    """Find all bases and their adapters under `root` (default: the working directory), the default base
    first.

    Bases and adapters in the settings must exist and fit. Other adapters that do not fit are not served, with
    a note. Raises `adapters.errors.FileRefusedError`, `AdapterRejectedError` and `SettingsError`.
    """
    root = root or Path.cwd()
    mark_home(settings.home)
    finds = discover(settings, root)
    pointers = read_pointers(settings.home / "registry")
    known = provenance(settings)
    kept: list[list[Adapter]] = []
    notes: list[list[str]] = []
    for one in finds:
        recorded, unrecorded = _check_provenance(known, one.named, one.found, pointers)
        fitting, refused = _check_fit(recorded, one.named, one.digest, one.base.name)
        kept.append(fitting)
        beside = (one.base.warning,) if one.base.warning else ()
        notes.append([*beside, *one.notes, *unrecorded, *refused])
    trial: list[ServedAdapters] = []
    actives: list[Mapping[str, str]] = []
    for one, fitting, noted in zip(finds, kept, notes, strict=True):
        active, passed_over = active_versions(fitting, pointers)
        noted += passed_over
        actives.append(active)
        trial.append(_served(one, fitting, active, {}))
    languages, default = place_names(settings.routing, trial)
    served: list[ServedAdapters] = []
    for index, one in enumerate(finds):
        own = {code: name for code, (place, name) in languages.items() if place == index}
        spoken = {code: name for code, name in own.items() if trial[index].is_adapter(name)}
        served.append(_served(one, kept[index], actives[index], spoken))
        notes[index] += describe_contested(served[index])
    spoken_by = {code: name for code, (_, name) in languages.items()}
    routing = LanguageRouting(served, settings.routing, spoken_by, default)
    routing.check_weights()
    notes[0] += routing.describe_contested()
    return tuple(
        Catalogue(
            one.own,
            one.base,
            served[index],
            routing,
            index,
            configured=tuple(adapter.full_name for adapter in one.named),
            notes=tuple(notes[index]),
            warnings=_warnings(kept[index], settings.home if not index else None),
            retired=one.retired,
        )
        for index, one in enumerate(finds)
    )


def _served(
    found: BaseFinds, adapters: Iterable[Adapter], active: Mapping[str, str], languages: Mapping[str, str]
) -> ServedAdapters:
    return ServedAdapters(
        adapters,
        base_digest=found.digest,
        base_name=next(iter(found.own.settings.served_model_name), found.base.name),
        base_aliases=found.own.settings.served_model_name[1:],
        active=active,
        languages=languages,
    )


def provenance(settings: Settings) -> Provenance | None:
    """Return the check that adapters are recorded in the ledger; None unless `require_provenance` is set.

    Reads and verifies the whole ledger, which takes about 0.2 ms per entry. Call it again for adapters that
    are added later. Raises `adapters.errors.LedgerError`.
    """
    if not settings.require_provenance:
        return None
    from adapters.ledger.provenance import Provenance

    return Provenance.read(settings.home / "ledger", settings.ledger_public_key)


def read_pointers(registry: Path) -> AliasPointers:
    """Return the registry's active versions; none if their file is damaged, which `find_adapters` reports."""
    try:
        return AliasPointers.read(registry)
    except PointersError:
        return AliasPointers()


def _check_provenance(
    known: Provenance | None,
    named: Iterable[Adapter],
    found: Iterable[Adapter],
    pointers: AliasPointers,
) -> tuple[list[Adapter], list[str]]:
    """Return the adapters that the ledger records, and a note for each other adapter. Raises
    `AdapterRejectedError` if the settings list one that it does not record.

    A promoted version that the ledger does not record is kept, marked with this problem, so that no other
    version replaces it.
    """
    if known is None:
        return list(found), []
    for adapter in named:
        known.require(adapter)
    kept: list[Adapter] = []
    refused: list[str] = []
    for adapter in found:
        try:
            if adapter.problem is None:
                known.require(adapter)
            kept.append(adapter)
        except AdapterRejectedError as error:
            refused.append(str(error))
            if pointers.active(adapter.alias) == adapter.version.lower():
                kept.append(without_provenance(adapter))
    return kept, refused


def without_provenance(adapter: Adapter) -> Adapter:
    """Return `adapter` marked as damaged, because the ledger does not record it."""
    problem = (
        "the ledger does not record the adapter's digest, and require_provenance is on; "
        "add the adapter with oneseek adapters add"
    )
    return damaged_adapter(
        adapter.path,
        adapter.alias,
        adapter.version,
        problem,
        adapter.language,
        imported=adapter.imported,
        place=adapter.place,
    )


def _check_fit(
    found: Iterable[Adapter], named: Iterable[Adapter], digest: str, base: str
) -> tuple[list[Adapter], list[str]]:
    """Return the adapters that one base can serve together, and a note for each that conflicts with
    others.
    """
    trial = ServedAdapters(named, base_digest=digest, base_name=base)
    refused: list[str] = []
    for adapter in found:
        try:
            trial.add(adapter)
        except AdapterRejectedError as error:
            refused.append(str(error))
    return list(trial.adapters()), refused


def versions_outside(adapters: Iterable[Adapter], base: str) -> tuple[VersionFolder, ...]:
    """Return the versions outside the registry's folder that the registry can record as active or retired."""
    return tuple(
        VersionFolder.recorded(FolderRecord.of(adapter, base))
        for adapter in adapters
        if adapter.place not in ("registry", "loaded")
    )


def _warnings(kept: Iterable[Adapter], home: Path | None) -> tuple[str, ...]:
    """Return warnings about adapters without a recorded base digest, and about a home folder that is not
    writable.
    """
    warnings: list[str] = []
    if home is not None and home.exists() and not os.access(home, os.W_OK):
        warnings.append(
            f"the home folder {home} is not writable: adapters are served, but every change to adapters "
            "fails; "
            "make the folder writable"
        )
    found = [one.full_name for one in kept if one.base_digest is None and one.problem is None]
    if not found:
        return tuple(warnings)
    listed = ", ".join(found[:_LISTED]) + (f" and {len(found) - _LISTED} more" if found[_LISTED:] else "")
    told = (
        "adapters without a recorded base digest may be for another base, since only their shapes were "
        "checked: "
        f"{listed}"
    )
    return (*warnings, told)


def describe_contested(served: ServedAdapters) -> list[str]:
    """Return a note for each language with several adapters, if the settings choose none of them."""
    return [
        f"several adapters are for the language {code} ({', '.join(aliases)}), so none of them answers it; "
        f"choose an adapter, such as --routing-languages {code}={aliases[0]}"
        for code, aliases in served.contested_languages().items()
    ]


def open_registry(settings: Settings) -> Registry:
    """Open the registry in the home folder. It records each change in the ledger. Raises `HomeError`.

    The registry also knows the adapters that a server would serve from other folders.
    """
    from adapters.registry.registry import Registry

    @cache
    def outside() -> tuple[VersionFolder, ...]:
        return tuple(version for catalogue in open_catalogues(settings) for version in catalogue.outside)

    return Registry(settings.home, open_ledger(settings), outside)


def open_ledger(settings: Settings) -> Ledger:
    """Open the ledger in the home folder for reading. Raises `HomeError`."""
    from adapters.ledger import Ledger

    check_home(settings.home)
    return Ledger.open(settings.home / "ledger")


def open_base(settings: Settings, folder: Path | None = None, name: str | None = None) -> Base:
    """Return the base to check the adapter in `folder` against: the one that a server would use for it.

    With several bases, that is the base called `name`, else the only base that the adapter fits, else the
    default base. Raises `BaseModelError`, `HomeError`, and `SettingsError` if no base is called `name`.
    """
    from adapters.bases import find_base
    from adapters.registry.intake import Base

    mark_home(settings.home)
    bases = each_base(settings)
    chosen = bases[0]
    if name is not None:
        found = [own for own in bases if own.name is not None and own.name.lower() == name.lower()]
        if not found:
            listed = ", ".join(settings.bases) or "none; give an alias without a base"
            raise SettingsError("alias", f"no base is called {name!r}; bases in the settings: {listed}")
        chosen = found[0]
    elif folder is not None and len(bases) > 1:
        fitting = [own for own in bases if _fits(folder, own.settings)]
        chosen = fitting[0] if len(fitting) == 1 else chosen
    base = find_base(Path.cwd(), chosen.settings.base_model)
    base = base if chosen.name is None else replace(base, name=chosen.name)
    return Base.read(base, settings.home / "cache")


def _fits(folder: Path, settings: Settings) -> bool:
    from adapters.bases import find_base

    base = find_base(Path.cwd(), settings.base_model)
    digest = base_digest(base.path, settings.home / "cache")
    return Neighbour(base, ServedAdapters(base_digest=digest, base_name=base.name)).fits(folder)
