"""One state of the registry, and every question that can be asked of it. It never changes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

from adapters.errors import UnknownAdapterError
from adapters.lora.manifest import Adapter
from adapters.registry.traffic import Shadow, TrafficSplit

_HINTED = 512
"""Most names that an unknown one is compared with."""
_COMPARED = 64
"""Most characters of it that are."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One state of a registry. It never changes, so names resolved in one agree with each other."""

    base_digest: str
    base_name: str
    base_aliases: tuple[str, ...] = ()
    """Further public names of the base."""
    by_alias: Mapping[str, Mapping[str, Adapter]]
    """Alias in lower case → version in lower case → adapter, versions in natural order."""
    active_versions: Mapping[str, str]
    """Alias in lower case → its active version in lower case; the same keys as `by_alias`."""
    short_names: Mapping[str, str]
    """Configured short name → alias."""
    spoken: Mapping[str, str]
    """Configured language code → alias; goes before what adapters say of themselves."""
    splits: Mapping[str, TrafficSplit] = field(default_factory=dict[str, TrafficSplit])
    """Alias in lower case → how its requests are divided between versions that are held."""
    shadows: Mapping[str, Shadow] = field(default_factory=dict[str, Shadow])
    """Alias in lower case → what also answers a part of its requests."""

    def resolve(self, name: str) -> Adapter:
        """The adapter of an `alias`, an `alias@version`, or a short name in the alias's place; in any case.

        Raises `UnknownAdapterError`; never answers the base.
        """
        before, at, after = name.partition("@")
        alias = self._alias(before)
        if alias is None:
            raise UnknownAdapterError(name, self._close(before))
        if not at:
            return self._active(alias)
        version = after.strip().lower()
        if version not in self.by_alias[alias]:
            raise UnknownAdapterError(name, self._close_versions(alias, version))
        return self.by_alias[alias][version]

    def weighted(self, parts: Iterable[tuple[str, float]]) -> list[tuple[Adapter, float]]:
        """The adapter of each name with its weight. Raises as `resolve` does."""
        return [(self.resolve(name), weight) for name, weight in parts]

    def is_adapter(self, name: str) -> bool:
        """Whether `resolve` finds it."""
        try:
            self.resolve(name)
        except UnknownAdapterError:
            return False
        return True

    def is_base(self, name: str) -> bool:
        """Whether it names the base: `base`, or the base's own name where no adapter has it."""
        asked = name.strip().lower()
        named = any(asked == one.lower() for one in (self.base_name, *self.base_aliases))
        return asked == "base" or (named and not self.is_adapter(asked))

    def aliases(self) -> tuple[str, ...]:
        """Every alias as written in its active version, sorted."""
        return tuple(self._active(alias).alias for alias in sorted(self.by_alias))

    def versions(self, alias: str) -> tuple[Adapter, ...]:
        """Every version of an alias or short name, in natural order. Raises `UnknownAdapterError`."""
        return tuple(self.by_alias[self._known(alias)].values())

    def active(self, alias: str) -> Adapter:
        """The version that an alias or short name stands for. Raises `UnknownAdapterError`."""
        return self._active(self._known(alias))

    def adapters(self) -> tuple[Adapter, ...]:
        """Every version of every alias, by alias, then in natural order."""
        return tuple(adapter for alias in sorted(self.by_alias) for adapter in self.by_alias[alias].values())

    def by_digest(self, digest: str) -> Adapter:
        """The adapter with this digest; where names share it, an active one. Raises `UnknownAdapterError`."""
        if digest not in self._digests:
            raise UnknownAdapterError(digest)
        return self._digests[digest]

    def divided_alias(self, name: str) -> str | None:
        """The alias in lower case, where `name` is one or a short name and its requests are divided."""
        alias = self._alias(name)
        return alias if alias in self.splits or alias in self.shadows else None

    def languages(self) -> dict[str, str]:
        """Language code → alias: as configured, else the one alias whose active version speaks it.

        An alias that is spelled like a code is a name alone: it takes no language from another.
        """
        return {code: self._active(alias).alias for code, alias in sorted(self._by_language.items())}

    def contested_languages(self) -> dict[str, tuple[str, ...]]:
        """Language code → aliases, where several speak it and none is configured; it names none then."""
        return {code: found for code, found in self._speakers.items() if code not in self._by_language}

    @cached_property
    def imported(self) -> str | None:
        """The alias that stands for what an existing installation served; None if nothing was imported.

        Of several, one that speaks no language, so that nothing else would choose it, then the first by name.
        """
        held = self.by_alias.items()
        found = [self._active(alias) for alias, kept in held if any(one.imported for one in kept.values())]
        order = sorted(found, key=lambda adapter: (adapter.language is not None, adapter.alias.lower()))
        return order[0].alias if order else None

    def _known(self, name: str) -> str:
        alias = self._alias(name)
        if alias is None:
            raise UnknownAdapterError(name, self._close(name))
        return alias

    def _alias(self, name: str) -> str | None:
        """The alias, in lower case, that `name` means: itself, a short name, or the language of one alias."""
        name = name.strip().lower()
        return name if name in self.by_alias else self._short.get(name)

    @cached_property
    def _short(self) -> dict[str, str]:
        named = {**self._by_language, **self.short_names}
        return {name.lower(): alias.lower() for name, alias in named.items()}

    @cached_property
    def _by_language(self) -> dict[str, str]:
        """Language code → the alias that answers it; both in lower case."""
        spoken = {code: found[0] for code, found in self._speakers.items() if len(found) == 1}
        return {code.lower(): alias.lower() for code, alias in {**spoken, **self.spoken}.items()}

    @cached_property
    def _speakers(self) -> dict[str, tuple[str, ...]]:
        """Language code → aliases whose active version speaks it, sorted."""
        found: dict[str, list[str]] = {}
        for adapter in map(self._active, sorted(self.by_alias)):
            if adapter.language is not None:
                found.setdefault(adapter.language, []).append(adapter.alias)
        return {code: tuple(aliases) for code, aliases in found.items()}

    @cached_property
    def _digests(self) -> dict[str, Adapter]:
        actives = [self._active(alias) for alias in self.by_alias]
        every = (*reversed(self.adapters()), *reversed(actives))
        return {adapter.digest: adapter for adapter in every if adapter.problem is None}

    def _active(self, alias: str) -> Adapter:
        return self.by_alias[alias][self.active_versions[alias]]

    def _close(self, name: str) -> list[str]:
        speakers = self._speakers.get(name.strip().lower())
        if speakers:
            return list(speakers[:3])
        known = list(islice((*self.by_alias, *self._short), _HINTED))
        close = difflib.get_close_matches(name.strip().lower()[:_COMPARED], known, n=3)
        return [self._active(found).alias if found in self.by_alias else found for found in close]

    def _close_versions(self, alias: str, version: str) -> list[str]:
        known = list(self.by_alias[alias])
        close = difflib.get_close_matches(version[:_COMPARED], known[-_HINTED:], n=3, cutoff=0.3)
        return [self.by_alias[alias][found].full_name for found in close or known[-1:]]
