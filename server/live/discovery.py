"""Finds bases and adapters, and assigns each adapter to the base that it fits by digest and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from adapters.bases import FoundBase, find_base
from adapters.errors import AdapterRejectedError, BaseModelError, FileRefusedError
from adapters.files.hashes import HashCache, hash_file
from adapters.lora.digest import base_digest
from adapters.lora.manifest import Adapter
from adapters.pickles import import_command
from adapters.registry.discovery.adapter_folder import ServedBase
from adapters.registry.discovery.finder import (
    FoundAdapters,
    UnconvertedPickle,
    find_adapters,
    read_named,
)
from adapters.remote.pins import names_url
from server.config.each_base import BaseSettings, each_base
from server.config.environment import expand_home
from server.config.settings import Settings
from server.config.values import SettingsError
from server.live.configured import describe_configured

_LISTED = 8
"""Maximum number of files in one note."""


@dataclass(frozen=True)
class BaseFinds:
    """A base, with the adapters that were found for it."""

    own: BaseSettings
    base: FoundBase
    digest: str
    named: tuple[Adapter, ...]
    """The adapters that the settings list for this base."""
    found: tuple[Adapter, ...]
    """Other adapters, which were found in the standard folders."""
    retired: tuple[Adapter, ...] = ()
    """Retired adapters that were found outside the registry."""
    notes: tuple[str, ...] = ()
    """Notes about adapters that are not served, with the reason."""


def discover(settings: Settings, root: Path) -> list[BaseFinds]:
    """Find all bases of `settings`, the default base first, each with its adapters.

    Raises `adapters.errors.FileRefusedError`, `AdapterRejectedError` and `SettingsError`.
    """
    bases = [_find(own, root) for own in each_base(settings)]
    digests = [base_digest(base.path, settings.home / "cache") for _, base in bases]
    named = [_folders_named(own.settings) for own, _ in bases]
    if settings.bases:
        served = [ServedBase.read(base, digest) for (_, base), digest in zip(bases, digests, strict=True)]
        for entry in _folders_named(settings):
            named[_base_of(entry, served)].append(entry)
    hashes = HashCache(hash_file(settings.home))
    finds: list[BaseFinds] = []
    pickles: tuple[str, ...] = ()
    refused: list[tuple[FileRefusedError, ...]] = []
    for (own, base), digest, entries in zip(bases, digests, named, strict=True):
        looked = _look(own, root, base, entries, digest, hashes)
        found = looked.adapters[len(looked.named) :]
        notes = tuple(describe_configured(own.settings))
        finds.append(BaseFinds(own, base, digest, looked.named, found, looked.retired, notes))
        refused.append(looked.refused)
        if len(finds) == 1:
            pickles = tuple(describe_unconverted(looked.unconverted))
    if len(finds) > 1:
        return _divide(finds, refused, pickles)
    (one,) = finds
    notes = (*one.notes, *map(str, refused[0]), *_describe_retired(one.retired), *pickles)
    return [replace(one, notes=notes)]


def _folders_named(settings: Settings) -> list[str]:
    """Return the adapters that the settings list as folders, not as URLs."""
    return [expand_entry(entry) for entry in settings.adapters if not names_url(entry)]


def expand_entry(entry: str) -> str:
    """Return an entry of the setting `adapters`, PATH or NAME=PATH, with `~` expanded."""
    name, equals, path = entry.partition("=")
    return f"{name}={expand_home(path)}" if equals and path.startswith("~") else str(expand_home(entry))


def _find(own: BaseSettings, root: Path) -> tuple[BaseSettings, FoundBase]:
    if own.name is None:
        return own, find_base(root, own.settings.base_model)
    setting = f"bases.{own.name}.path"
    try:
        return own, replace(find_base(root, own.settings.base_model), name=own.name)
    except BaseModelError as error:
        raise SettingsError(setting, str(error).replace("--base-model", setting)) from None


def _look(
    own: BaseSettings, root: Path, base: FoundBase, entries: Sequence[str], digest: str, hashes: HashCache
) -> FoundAdapters:
    try:
        return find_adapters(root, own.settings.home, base, entries, digest=digest, hashes=hashes)
    except FileRefusedError:
        raise
    except ValueError as error:
        name = "adapters" if own.name is None else f"bases.{own.name}.adapters"
        raise SettingsError(name, str(error)) from None


def _base_of(entry: str, bases: Sequence[ServedBase]) -> int:
    """Return the index of the only base that fits an adapter in the top-level setting `adapters`. Raises
    `FileRefusedError` if no base fits, and `SettingsError` if several do.
    """
    fitting: list[int] = []
    problem: FileRefusedError | None = None
    for index, base in enumerate(bases):
        try:
            read_named(entry, base)
            fitting.append(index)
        except FileRefusedError as error:
            problem = problem or error
        except ValueError as error:
            raise SettingsError("adapters", str(error)) from None
    if problem is not None and not fitting:
        raise problem
    if len(fitting) > 1:
        names = [bases[index].found.name for index in fitting]
        raise SettingsError("adapters", f"the adapter {entry} {_ambiguous(names)}")
    return fitting[0]


def _ambiguous(names: Sequence[str]) -> str:
    return (
        f"fits several bases ({', '.join(names)}); list the adapter under one base, such as in "
        f"bases.{names[0]}.adapters"
    )


def _divide(
    finds: Sequence[BaseFinds], refused: Sequence[Iterable[FileRefusedError]], pickles: Iterable[str]
) -> list[BaseFinds]:
    """Assign each adapter to one base. An adapter that fits none or several is not served, with a note."""
    named = {adapter.path.resolve() for one in finds for adapter in one.named}
    places: dict[Path, list[tuple[int, Adapter]]] = {}
    for index, one in enumerate(finds):
        for adapter in one.found:
            if adapter.path.resolve() not in named:
                places.setdefault(adapter.path.resolve(), []).append((index, adapter))
    kept: list[list[Adapter]] = [[] for _ in finds]
    notes: list[str] = []
    for candidates in places.values():
        whole = [(index, adapter) for index, adapter in candidates if adapter.problem is None]
        if len(whole) > 1:
            fitting = [finds[index].base.name for index, _ in whole]
            notes.append(
                f"adapter {whole[0][1].full_name} in {whole[0][1].path} is not served: it "
                f"{_ambiguous(fitting)}"
            )
            continue
        index, adapter = (whole or candidates)[0]
        kept[index].append(adapter)
    retired = _retired_once(finds)
    known = named | places.keys() | {adapter.path.resolve() for each in retired for adapter in each}
    notes += [*_once(refused, known), *_describe_retired(one for each in retired for one in each), *pickles]
    _check_aliases([(one.base.name, (*one.named, *own)) for one, own in zip(finds, kept, strict=True)])
    return [
        replace(
            one,
            found=tuple(own),
            retired=tuple(gone),
            notes=(*one.notes, *(notes if not index else ())),
        )
        for index, (one, own, gone) in enumerate(zip(finds, kept, retired, strict=True))
    ]


def _retired_once(finds: Sequence[BaseFinds]) -> list[list[Adapter]]:
    """Return the retired adapters of each base. An adapter that fits several bases goes to the first of
    them.
    """
    seen: set[Path] = set()
    retired: list[list[Adapter]] = []
    for one in finds:
        own = [adapter for adapter in one.retired if adapter.path.resolve() not in seen]
        seen |= {adapter.path.resolve() for adapter in own}
        retired.append(own)
    return retired


def _describe_retired(retired: Iterable[Adapter]) -> Iterator[str]:
    for one in retired:
        again = f"oneseek adapters promote {one.full_name}"
        yield (
            f"adapter {one.full_name} in {one.path} is not served, because it is retired; "
            f"to serve it again: {again}"
        )


def describe_unconverted(found: Iterable[UnconvertedPickle]) -> list[str]:
    """Return a note for each folder with pickle files, which are not served, with the command to convert
    them.
    """
    notes: list[str] = []
    for place, group in groupby(found, key=lambda pickle: pickle.place):
        held = list(group)
        if len(held) == 1:
            notes.append(
                f"{held[0].path} is not loaded, because it is a pickle; convert it with: {held[0].command}"
            )
            continue
        listed = ", ".join(str(one.path.relative_to(place)) for one in held[:_LISTED])
        more = f" and {len(held) - _LISTED} more" if held[_LISTED:] else ""
        told = f"the pickles in {place} are not loaded: {listed}{more}"
        notes.append(f"{told}; convert them with: {import_command(place)}")
    return notes


def _once(refused: Iterable[Iterable[FileRefusedError]], known: set[Path]) -> Iterator[str]:
    """Yield a note for each adapter that no base can serve, once for each folder."""
    seen: set[Path] = set()
    for error in (error for errors in refused for error in errors):
        folder = error.path.resolve()
        if not ({folder, folder.parent} & (known | seen)):
            seen.add(folder)
            yield str(error)


def _check_aliases(bases: Sequence[tuple[str, Iterable[Adapter]]]) -> None:
    """Raise `AdapterRejectedError` if two bases have the same alias, or an alias is a base's name."""
    names = {base.lower(): base for base, _ in bases}
    listed = [(base, adapter) for base, adapters in bases for adapter in adapters]
    seen: dict[str, tuple[str, Adapter]] = {}
    for base, adapter in listed:
        alias = adapter.alias.lower()
        remedy = f"Give this adapter another alias: list it under bases.{base}.adapters as NAME=PATH."
        if alias in names:
            raise AdapterRejectedError(
                f"The adapter {adapter.full_name} in {adapter.path}, on the base {base}, has the same name "
                f"as the base {names[alias]}. {remedy}"
            )
        other, before = seen.setdefault(alias, (base, adapter))
        if other != base:
            raise AdapterRejectedError(
                f"Two bases have adapters with the alias {adapter.alias}: {before.full_name} in "
                f"{before.path} on {other}, and {adapter.full_name} in {adapter.path} on {base}. {remedy}"
            )
