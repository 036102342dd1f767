"""Looks up adapters in one state of the registry, which never changes."""

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
"""Maximum number of names that an unknown name is compared with, to suggest close matches."""
_COMPARED = 64
"""Maximum number of characters of an unknown name that are compared."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The names and adapters that are served at one moment. It never changes, so all names that are looked up
    in one snapshot agree with each other.
    """

    base_digest: str
    base_name: str
    base_aliases: tuple[str, ...] = ()
    """Further public names of the base."""
    by_alias: Mapping[str, Mapping[str, Adapter]]
    """The adapters by alias and by version, both in lower case; versions in natural order."""
    active_versions: Mapping[str, str]
    """Maps each alias in lower case to its active version in lower case; the same keys as `by_alias`."""
    short_names: Mapping[str, str]
    """Maps each configured short name to an alias."""
    spoken: Mapping[str, str]
    """Maps each configured language code to an alias. Takes precedence over the languages that adapters
    record.
    """
    splits: Mapping[str, TrafficSplit] = field(default_factory=dict[str, TrafficSplit])
    """Maps each alias in lower case to how its requests are divided between the versions served here."""
    shadows: Mapping[str, Shadow] = field(default_factory=dict[str, Shadow])
    """Maps each alias in lower case to the shadow that also answers part of its requests."""

    def resolve(self, name: str) -> Adapter:
        """Return the adapter for an `alias`, an `alias@version`, or a short name instead of the alias, in any
        case.

        Raises `UnknownAdapterError`. Never returns the base.
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
        """Return the adapter of each name with its weight. Raises the errors of `resolve`."""
        return [(self.resolve(name), weight) for name, weight in parts]

    def is_adapter(self, name: str) -> bool:
        """True if `resolve` would find the name."""
        try:
            self.resolve(name)
        except UnknownAdapterError:
            return False
        return True

    def is_base(self, name: str) -> bool:
        """True if `name` means the base: `base`, or the base's own name if no adapter has it."""
        asked = name.strip().lower()
        named = any(asked == one.lower() for one in (self.base_name, *self.base_aliases))
        return asked == "base" or (named and not self.is_adapter(asked))

    def aliases(self) -> tuple[str, ...]:
        """Every alias as written in its active version, sorted."""
        return tuple(self._active(alias).alias for alias in sorted(self.by_alias))

    def versions(self, alias: str) -> tuple[Adapter, ...]:
        """Return every version of an alias or short name, in natural order. Raises `UnknownAdapterError`."""
        return tuple(self.by_alias[self._known(alias)].values())

    def active(self, alias: str) -> Adapter:
        """Return the active version of an alias or short name. Raises `UnknownAdapterError`."""
        return self._active(self._known(alias))

    def adapters(self) -> tuple[Adapter, ...]:
        """Every version of every alias, by alias, then in natural order."""
        return tuple(adapter for alias in sorted(self.by_alias) for adapter in self.by_alias[alias].values())

    def by_digest(self, digest: str) -> Adapter:
        """Return the adapter with this digest. If several names share it, prefer an active one. Raises
        `UnknownAdapterError`.
        """
        if digest not in self._digests:
            raise UnknownAdapterError(digest)
        return self._digests[digest]

    def divided_alias(self, name: str) -> str | None:
        """Return the alias in lower case if `name` is an alias or short name whose requests are divided, else
        None.
        """
        alias = self._alias(name)
        return alias if alias in self.splits or alias in self.shadows else None

    def languages(self) -> dict[str, str]:
        """Maps each language code to an alias: the configured one, else the only alias whose active version
        speaks it.

        An alias that is spelled like a language code is only a name: it does not take that language from
        another alias.
        """
        return {code: self._active(alias).alias for code, alias in sorted(self._by_language.items())}

    def contested_languages(self) -> dict[str, tuple[str, ...]]:
        """Maps each language code to aliases, if several speak it and none is configured. The code then names
        no adapter.
        """
        return {code: found for code, found in self._speakers.items() if code not in self._by_language}

    def topics(self) -> dict[str, Adapter]:
        """The active version of each alias that has example questions and can be served."""
        found = (self._active(alias) for alias in sorted(self.by_alias))
        return {one.alias: one for one in found if one.examples and one.problem is None}

    @property
    def routing_state(self) -> tuple[object, ...]:
        """The part of the state that routing depends on. If it changes, the router must be made again."""
        topics = tuple((alias, one.language, one.examples) for alias, one in self.topics().items())
        return (*self.languages().items(), *topics)

    @cached_property
    def imported(self) -> str | None:
        """Return the alias of the adapter that an existing installation served. None if nothing was imported.

        If there are several, prefer one without a language, since nothing else would choose it, then the
        first by name.
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
        """Return the alias in lower case that `name` means: an alias, a short name, or a language with one
        alias.
        """
        name = name.strip().lower()
        return name if name in self.by_alias else self._short.get(name)

    @cached_property
    def _short(self) -> dict[str, str]:
        named = {**self._by_language, **self.short_names}
        return {name.lower(): alias.lower() for name, alias in named.items()}

    @cached_property
    def _by_language(self) -> dict[str, str]:
        """Maps each language code to the alias that answers it; both in lower case."""
        spoken = {code: found[0] for code, found in self._speakers.items() if len(found) == 1}
        return {code.lower(): alias.lower() for code, alias in {**spoken, **self.spoken}.items()}

    @cached_property
    def _speakers(self) -> dict[str, tuple[str, ...]]:
        """Maps each language code to aliases whose active version speaks it, sorted.

        One with example questions answers a topic, and takes no language from those without.
        """
        found: dict[str, list[Adapter]] = {}
        for adapter in map(self._active, sorted(self.by_alias)):
            if adapter.language is not None:
                found.setdefault(adapter.language, []).append(adapter)
        general = {code: [one for one in those if not one.examples] or those for code, those in found.items()}
        return {code: tuple(one.alias for one in those) for code, those in general.items()}

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
