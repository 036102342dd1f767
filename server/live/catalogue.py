"""What the settings lead to: the base, its adapters in a registry, and the router over them.

`serve`, `route` and `adapters list` share it. It reads files and hashes them; it starts no engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.bases import FoundBase, find_base
from adapters.errors import AdapterRejectedError, FileRefusedError, UnknownAdapterError
from adapters.home import check_home, mark_home
from adapters.lora.digest import base_digest
from adapters.lora.hashes import HashCache, hash_file
from adapters.lora.manifest import Adapter, damaged_adapter
from adapters.pickles import import_command
from adapters.registry.finder import FoundAdapters, UnconvertedPickle, find_adapters
from adapters.registry.folders import FolderRecord
from adapters.registry.listing import VersionFolder
from adapters.registry.pointers import AliasPointers, PointersError, active_versions
from adapters.registry.served import ServedAdapters
from adapters.remote.pins import names_url
from server.config.environment import expand_home
from server.config.settings import RoutingOptions, Settings
from server.config.values import SettingsError, closest
from server.live.configured import describe_configured

if TYPE_CHECKING:
    from adapters.ledger import Ledger
    from adapters.ledger.provenance import Provenance
    from adapters.registry.intake import Base
    from adapters.registry.registry import Registry
    from routing.route import Router
    from routing.settings import RoutingSettings


_LISTED = 8
"""Names in one note."""


@dataclass(frozen=True)
class Catalogue:
    """A base with everything that can answer for it."""

    base: FoundBase
    served: ServedAdapters
    options: RoutingOptions
    configured: tuple[str, ...] = field(default=())
    """Full names of the adapters that the settings name."""
    notes: tuple[str, ...] = field(default=())
    """What was found and is not served, and why: for the log, one line each."""
    warnings: tuple[str, ...] = field(default=())
    """What is served and should be looked at, one line each."""
    retired: tuple[Adapter, ...] = ()
    """What was found outside the registry and is retired."""

    @property
    def outside(self) -> tuple[VersionFolder, ...]:
        """The versions that are found outside the registry, served or retired."""
        return versions_outside((*self.served.adapters(), *self.retired), self.served.base_digest)

    @cached_property
    def router(self) -> Router:
        """Decides routes, for the languages that the registry had on first use; raises as `make_router`."""
        return self.make_router()

    def make_router(self) -> Router:
        """A router for the languages that the registry has now; reading their profiles takes a moment.

        Raises `SettingsError` for a configured language that cannot be detected.
        """
        from routing.detect import ProfileDetector
        from routing.route import Router

        settings = routing_settings(self.served, self.options)
        return Router(settings, ProfileDetector(settings))


def open_catalogue(settings: Settings, root: Path | None = None) -> Catalogue:
    """Find the base and the adapters for `settings` under `root`, by default the working directory.

    What the settings name must be there and fit; what is merely found and does not fit becomes a note.
    Raises `adapters.errors.FileRefusedError`, `AdapterRejectedError` and `SettingsError`.
    """
    root = root or Path.cwd()
    mark_home(settings.home)
    base = find_base(root, settings.base_model)
    digest = base_digest(base.path, settings.home / "cache")
    hashes = HashCache(hash_file(settings.home))
    named_here = tuple(_expanded(entry) for entry in settings.adapters if not names_url(entry))
    try:
        found = find_adapters(root, settings.home, base, named_here, digest=digest, hashes=hashes)
    except FileRefusedError:
        raise
    except ValueError as error:
        raise SettingsError("adapters", str(error)) from None
    pointers = read_pointers(settings.home / "registry")
    known = provenance(settings)
    others = found.adapters[len(found.named) :]
    recorded, unrecorded = _check_provenance(known, found.named, others, pointers)
    kept, refused = _check_fit(recorded, found.named, digest, base.name)
    active, passed_over = active_versions(kept, pointers)
    try:
        served = ServedAdapters(
            kept,
            base_digest=digest,
            base_name=next(iter(settings.served_model_name), base.name),
            base_aliases=settings.served_model_name[1:],
            active=active,
            languages=settings.routing.languages,
        )
    except UnknownAdapterError as error:
        raise SettingsError("routing.languages", str(error)) from None
    beside = (base.warning,) if base.warning else ()
    notes = (
        *beside,
        *describe_configured(settings),
        *_notes(found),
        *unrecorded,
        *refused,
        *passed_over,
        *describe_contested(served),
    )
    configured = tuple(adapter.full_name for adapter in found.named)
    warnings = _warnings(kept, settings.home)
    return Catalogue(base, served, settings.routing, configured, notes, warnings, found.retired)


def _expanded(entry: str) -> str:
    """PATH or NAME=PATH with the user's folder for `~`."""
    name, equals, path = entry.partition("=")
    return f"{name}={expand_home(path)}" if equals and path.startswith("~") else str(expand_home(entry))


def provenance(settings: Settings) -> Provenance | None:
    """What tells whether an adapter may enter; None where the settings do not ask for it.

    Reads and verifies the whole ledger, about 0.2 ms for each entry; ask anew for adapters that come later,
    as the ledger has grown by then. Raises `adapters.errors.LedgerError`.
    """
    if not settings.require_provenance:
        return None
    from adapters.ledger.provenance import Provenance

    return Provenance.read(settings.home / "ledger", settings.ledger_public_key)


def routing_settings(served: ServedAdapters, options: RoutingOptions) -> RoutingSettings:
    """What routing is told: a row for each language with an adapter, and whatever the settings say.

    An adapter whose language detection does not know gets no row; it can still be asked for by name.
    """
    from routing.settings import LanguageRow, RoutingSettings

    for code in options.languages:
        if not _detectable(code):
            raise SettingsError("routing.languages", f"{code!r} is a language that detection does not know")
    if options.default not in (None, "base") and not served.is_adapter(options.default):
        hint = closest(options.default, [*served.aliases(), "base"])
        raise SettingsError("routing.default", f"{options.default!r} is no adapter that is served here{hint}")
    spoken = served.languages().items()
    rows = tuple(LanguageRow(code, alias) for code, alias in spoken if _detectable(code))
    given: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("threshold", "undecided", "unsupported", "default")
        if getattr(options, name) is not None
    }
    try:
        return RoutingSettings(languages=rows, **given)
    except ValueError as error:
        raise SettingsError("routing", str(error)) from None


def _detectable(code: str) -> bool:
    from routing.profiles import profiled_languages
    from routing.scripts import LATIN, script_of
    from routing.settings import detection_code

    code = detection_code(code)
    return code in profiled_languages() or script_of(code) != LATIN


def read_pointers(registry: Path) -> AliasPointers:
    """The active versions; none if their file is damaged, which `find_adapters` reports."""
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
    """Found adapters that may enter, and a note for each that may not; a named one that may not raises.

    A promoted version that may not enter stays, with its problem: no other one takes its place.
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
    """`adapter` as one that is promoted and that the ledger does not know."""
    problem = "the ledger does not know its digest, and require_provenance is on"
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
    """Named and found adapters that go together on one base, and a note for each found one that does not."""
    trial = ServedAdapters(named, base_digest=digest, base_name=base)
    refused: list[str] = []
    for adapter in found:
        try:
            trial.add(adapter)
        except AdapterRejectedError as error:
            refused.append(str(error))
    return list(trial.adapters()), refused


def versions_outside(adapters: Iterable[Adapter], base: str) -> tuple[VersionFolder, ...]:
    """Those of `adapters` that lie outside the registry and whose aliases pointers may name."""
    return tuple(
        VersionFolder.recorded(FolderRecord.of(adapter, base))
        for adapter in adapters
        if adapter.place not in ("registry", "loaded")
    )


def _notes(found: FoundAdapters) -> list[str]:
    retired = [
        f"{one.full_name} in {one.path} is retired; to serve it again: "
        f"oneseek adapters promote {one.full_name}"
        for one in found.retired
    ]
    return [*map(str, found.refused), *retired, *describe_unconverted(found.unconverted)]


def describe_unconverted(found: Iterable[UnconvertedPickle]) -> list[str]:
    """A note for each place with adapters that are pickles and not imported, with the command that helps."""
    notes: list[str] = []
    for place, group in groupby(found, key=lambda pickle: pickle.place):
        held = list(group)
        if len(held) == 1:
            notes.append(f"{held[0].path} is a pickle and is not loaded; convert it with: {held[0].command}")
            continue
        listed = ", ".join(str(one.path.relative_to(place)) for one in held[:_LISTED])
        more = f" and {len(held) - _LISTED} more" if held[_LISTED:] else ""
        told = f"{place} holds pickles that are not loaded: {listed}{more}"
        notes.append(f"{told}; convert them with: {import_command(place)}")
    return notes


def _warnings(kept: Iterable[Adapter], home: Path) -> tuple[str, ...]:
    """Adapters that record no digest of their base, so that their shapes alone tell, and a read-only home."""
    warnings: list[str] = []
    if home.exists() and not os.access(home, os.W_OK):
        warnings.append(f"{home} cannot be written: what is there is served, and every change is refused")
    found = [one.full_name for one in kept if one.base_digest is None and one.problem is None]
    if not found:
        return tuple(warnings)
    listed = ", ".join(found[:_LISTED]) + (f" and {len(found) - _LISTED} more" if found[_LISTED:] else "")
    told = f"unverified base: no digest of their base is recorded, and only their shapes fit: {listed}"
    return (*warnings, told)


def describe_contested(served: ServedAdapters) -> list[str]:
    """A note for each language that several adapters speak, and none is configured for."""
    return [
        f"several adapters speak {code} ({', '.join(aliases)}), so none is chosen for it; say which with "
        f"--routing-languages {code}={aliases[0]}"
        for code, aliases in served.contested_languages().items()
    ]


def open_registry(settings: Settings) -> Registry:
    """The registry in the settings' home, whose ledger is told of every change. Raises `HomeError`.

    It knows what a server would serve from elsewhere here.
    """
    from adapters.registry.registry import Registry

    @cache
    def outside() -> tuple[VersionFolder, ...]:
        return open_catalogue(settings).outside

    return Registry(settings.home, open_ledger(settings), outside)


def open_ledger(settings: Settings) -> Ledger:
    """The ledger in the settings' home, to read. Raises `HomeError`."""
    from adapters.ledger import Ledger

    check_home(settings.home)
    return Ledger.open(settings.home / "ledger")


def open_base(settings: Settings) -> Base:
    """The base that a server would serve, for adapters to be checked against.

    Raises `BaseModelError`, and `HomeError`.
    """
    from adapters.bases import find_base
    from adapters.registry.intake import Base

    mark_home(settings.home)
    return Base.read(find_base(Path.cwd(), settings.base_model), settings.home / "cache")
