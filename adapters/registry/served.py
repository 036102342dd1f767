"""The adapters that a server serves, by alias and version. Each alias has one active version.

Readers take no lock: each state is an immutable `Snapshot`, and a change replaces it by a new one. This
module does not read or write files. A command such as import or promote changes the files first, and then
calls this module.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from adapters import names
from adapters.errors import AdapterRejectedError, UnknownAdapterError
from adapters.lora.manifest import Adapter
from adapters.registry.snapshot import Snapshot
from adapters.registry.traffic import Shadow, TrafficSplit

__all__ = ["AdapterRejectedError", "ServedAdapters", "Snapshot", "UnknownAdapterError"]

_NOTHING: Mapping[str, str] = MappingProxyType({})


class ServedAdapters:
    """The adapters of one base. Safe to use from any thread; reads never wait for changes.

    At first, the highest version of each alias in natural order is active, unless `active` (alias to version)
    names another. `short_names` and `languages` (code to alias) are further names for aliases; `base_aliases`
    are further names for the base. A language without an entry means the only alias whose active version has
    that language.

    Raises `AdapterRejectedError` if one of `adapters` is refused. Raises `UnknownAdapterError` if a name in
    the arguments means no adapter, and `ValueError` if it is reserved or invalid.
    """

    def __init__(
        self,
        adapters: Iterable[Adapter] = (),
        *,
        base_digest: str,
        base_name: str = "base",
        base_aliases: Iterable[str] = (),
        active: Mapping[str, str] = _NOTHING,
        short_names: Mapping[str, str] = _NOTHING,
        languages: Mapping[str, str] = _NOTHING,
    ) -> None:
        self._lock = threading.Lock()
        state = Snapshot(
            base_digest=base_digest,
            base_name=base_name,
            base_aliases=tuple(base_aliases),
            by_alias={},
            active_versions={},
            short_names={},
            spoken={},
        )
        for adapter in adapters:
            state = _with(state, adapter)
        highest = {alias: list(versions)[-1] for alias, versions in state.by_alias.items()}
        state = replace(state, active_versions=highest)
        for alias, version in active.items():
            state = _activated(state, alias, version)
        for name in short_names:
            names.alias(name)
        self.snapshot = replace(
            state,
            short_names={name.lower(): state.active(alias).alias for name, alias in short_names.items()},
            spoken={names.language(code): state.active(alias).alias for code, alias in languages.items()},
        )
        """The present state. Names resolved in one snapshot agree with each other."""
        self.guard: Callable[[str], None] | None = None
        """Called with the alias of each adapter that is added. Raises `AdapterRejectedError` if another base
        has that alias.
        """

    @property
    def base_digest(self) -> str:
        """Digest of the base that these adapters are for."""
        return self.snapshot.base_digest

    @property
    def base_name(self) -> str:
        """The public name of the base."""
        return self.snapshot.base_name

    def resolve(self, name: str) -> Adapter:
        """Return the adapter with the name `alias` or `alias@version`, ignoring case. A short name
        from the settings can replace the alias. See `Snapshot.resolve`.
        """
        return self.snapshot.resolve(name)

    def is_adapter(self, name: str) -> bool:
        """True if `name` is the name of an adapter. See `Snapshot.is_adapter`."""
        return self.snapshot.is_adapter(name)

    def is_base(self, name: str) -> bool:
        """True if `name` means the base: `base`, or one of the base's names that is not also an adapter's
        name. See `Snapshot.is_base`.
        """
        return self.snapshot.is_base(name)

    def has_base(self, name: str) -> bool:
        """True if `name` is `base` or one of the base's names. See `Snapshot.has_base`."""
        return self.snapshot.has_base(name)

    def aliases(self) -> tuple[str, ...]:
        """Every alias, spelled as in its active version, sorted. See `Snapshot.aliases`."""
        return self.snapshot.aliases()

    def adapters(self) -> tuple[Adapter, ...]:
        """Every version of every alias, sorted by alias and then by version. See `Snapshot.adapters`."""
        return self.snapshot.adapters()

    def versions(self, alias: str) -> tuple[Adapter, ...]:
        """Return every version of an alias or short name, sorted by version. See `Snapshot.versions`."""
        return self.snapshot.versions(alias)

    def active(self, alias: str) -> Adapter:
        """Return the active version of an alias or short name. See `Snapshot.active`."""
        return self.snapshot.active(alias)

    def by_digest(self, digest: str) -> Adapter:
        """Return the adapter with this digest. See `Snapshot.by_digest`."""
        return self.snapshot.by_digest(digest)

    def languages(self) -> dict[str, str]:
        """Maps each language code to an alias: the one in the settings, else the only alias whose active
        version has that language. See `Snapshot.languages`.
        """
        return self.snapshot.languages()

    @property
    def routing_state(self) -> tuple[object, ...]:
        """The languages and example questions that routing depends on. See `Snapshot.routing_state`."""
        return self.snapshot.routing_state

    def contested_languages(self) -> dict[str, tuple[str, ...]]:
        """Maps a language code to its aliases if several have that language and the settings choose none. See
        `Snapshot.contested_languages`.
        """
        return self.snapshot.contested_languages()

    def add(self, adapter: Adapter) -> None:
        """Add `adapter`. It becomes active only if its alias is new; use `activate` to change the active
        version.

        Adding the same adapter again changes nothing. Raises `AdapterRejectedError` if it is for another
        base, its name is reserved, or an adapter with another digest has its full name.
        """
        self.check_alias(adapter.alias)
        with self._lock:
            self.snapshot = _with(self.snapshot, adapter)

    def check_alias(self, alias: str) -> None:
        """Raise `AdapterRejectedError` if an adapter of another base of this server has `alias`."""
        if self.guard is not None:
            self.guard(alias)

    def replace(self, adapter: Adapter) -> Adapter:
        """Replace the version that has the same full name as `adapter`, and return the replaced version.

        Atomic, like `activate`. Raises `UnknownAdapterError` if there is no such version, else the errors of
        `add`.
        """
        with self._lock:
            alias, version = adapter.alias.lower(), adapter.version.lower()
            held = self.snapshot.by_alias.get(alias, {})
            if version not in held:
                raise UnknownAdapterError(adapter.full_name)
            before = held[version]
            others = {key: one for key, one in held.items() if key != version}
            without = replace(self.snapshot, by_alias={**self.snapshot.by_alias, alias: others})
            self.snapshot = _with(without, adapter)
            return before

    def activate(self, alias: str, version: str) -> Adapter:
        """Make `version` the active version of `alias`, and return the previously active version.

        Atomic: a reader sees the old version or the new one. If the version changes, any canary or shadow
        ends. Raises `UnknownAdapterError`.
        """
        with self._lock:
            before = self.snapshot.active(alias)
            self.snapshot = _activated(self.snapshot, alias, version)
            return before

    def divide(self, alias: str, split: TrafficSplit | None, shadow: Shadow | None) -> None:
        """Set the canaries (`split`) and the shadow of `alias`. None for both sends all its requests to the
        active version.

        Atomic. Raises `UnknownAdapterError` for an unknown alias or version, and `AdapterRejectedError` if
        the split was made for another active version.
        """
        with self._lock:
            self.snapshot = _divided(self.snapshot, alias, split, shadow)

    def remove(self, full_name: str) -> Adapter:
        """Remove the version `alias@version` from memory, and return it. Its files stay.

        Raises `UnknownAdapterError`. Raises `AdapterRejectedError` if the version is active and its alias has
        others, or if it is the last version of an alias that a short name or language in the settings points
        to.
        """
        with self._lock:
            adapter = self.snapshot.resolve(full_name)
            if "@" not in full_name:
                raise AdapterRejectedError(
                    f"{full_name} is not a full name with a version: use {adapter.full_name}"
                )
            self.snapshot = _without(self.snapshot, adapter)
            return adapter


def _with(state: Snapshot, adapter: Adapter) -> Snapshot:
    try:
        alias, version = names.alias(adapter.alias).lower(), names.version(adapter.version).lower()
    except ValueError as problem:
        raise AdapterRejectedError(f"The adapter in {adapter.path} is refused: {problem}") from problem
    if adapter.base_digest is not None and adapter.base_digest != state.base_digest:
        raise AdapterRejectedError(
            f"{adapter.full_name} was made for a base with the digest {adapter.base_digest}, but the base "
            f"{state.base_name} has {state.base_digest}. Serve the adapter on its own base."
        )
    versions = state.by_alias.get(alias, {})
    present = versions.get(version)
    if present is not None and present.digest != adapter.digest:
        raise AdapterRejectedError(
            f"Two different adapters are called {adapter.full_name}: {present.digest} in {present.path} and "
            f"{adapter.digest} in {adapter.path}. Give one of them another version or alias."
        )
    if present is not None:
        return state
    order = sorted({**versions, version: adapter}.items(), key=lambda item: names.natural(item[0]))
    actives = {**state.active_versions, alias: state.active_versions.get(alias, version)}
    return replace(
        state, by_alias={**state.by_alias, alias: MappingProxyType(dict(order))}, active_versions=actives
    )


def _activated(state: Snapshot, alias: str, version: str) -> Snapshot:
    adapter = state.resolve(f"{state.active(alias).alias}@{version}")
    key, active = adapter.alias.lower(), adapter.version.lower()
    if state.active_versions[key] != active:
        state = _undivided(state, key)
    return replace(state, active_versions={**state.active_versions, key: active})


def _divided(state: Snapshot, alias: str, split: TrafficSplit | None, shadow: Shadow | None) -> Snapshot:
    active = state.active(alias)
    key, found = active.alias.lower(), _undivided(state, active.alias.lower())
    wanted = (*(split.shares if split else ()), *((shadow.version,) if shadow else ()))
    for version in wanted:
        state.resolve(f"{active.alias}@{version}")
    if split is not None and split.active != active.version.lower():
        raise AdapterRejectedError(
            f"the canary was planned for the active version {split.active}, but "
            f"{active.full_name} is active now: plan the canary again"
        )
    splits = {**found.splits, key: split} if split is not None else found.splits
    shadows = {**found.shadows, key: shadow} if shadow is not None else found.shadows
    return replace(state, splits=splits, shadows=shadows)


def _undivided(state: Snapshot, alias: str) -> Snapshot:
    return replace(
        state,
        splits={key: split for key, split in state.splits.items() if key != alias},
        shadows={key: shadow for key, shadow in state.shadows.items() if key != alias},
    )


def _without(state: Snapshot, adapter: Adapter) -> Snapshot:
    alias, version = adapter.alias.lower(), adapter.version.lower()
    left = {key: held for key, held in state.by_alias[alias].items() if key != version}
    if left and state.active_versions[alias] == version:
        others = ", ".join(left)
        raise AdapterRejectedError(
            f"{adapter.full_name} is the active version of its alias: activate another first ({others})"
        )
    split, shadow = state.splits.get(alias), state.shadows.get(alias)
    if version in (split.shares if split else ()) or (shadow is not None and shadow.version == version):
        state = _undivided(state, alias)
    if left:
        return replace(state, by_alias={**state.by_alias, alias: MappingProxyType(left)})
    pointing = [n for n, to in {**state.short_names, **state.spoken}.items() if to.lower() == alias]
    if pointing:
        raise AdapterRejectedError(
            f"{adapter.full_name} is the last version of its alias, and the name "
            f"{pointing[0]} in the settings points to that alias: remove the name from the settings first"
        )
    held = {key: versions for key, versions in state.by_alias.items() if key != alias}
    return replace(state, by_alias=held, active_versions={key: state.active_versions[key] for key in held})
