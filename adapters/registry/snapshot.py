"""Look up adapters by name in one immutable state of a server."""

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
"""Maximum number of known names that an unknown name is compared with, to suggest similar names."""
_COMPARED = 64
"""Maximum number of characters of an unknown name that are compared, to suggest similar names."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The names and adapters that are served at one moment. Immutable, so all look-ups in one snapshot agree
    with each other.
    """

    base_digest: str
    base_name: str
    base_aliases: tuple[str, ...] = ()
    """Further public names of the base."""
    by_alias: Mapping[str, Mapping[str, Adapter]]
    """Maps each alias to its versions, both in lower case. The versions are in natural order."""
    active_versions: Mapping[str, str]
    """Maps each alias to its active version, both in lower case. It has the same keys as `by_alias`."""
    short_names: Mapping[str, str]
    """Maps each short name from the settings to an alias."""
    spoken: Mapping[str, str]
    """Maps each language code in the settings to an alias. Takes precedence over the languages that adapters
    record.
    """
    splits: Mapping[str, TrafficSplit] = field(default_factory=dict[str, TrafficSplit])
    """Maps an alias in lower case to the division of its requests, if it has canaries."""
    shadows: Mapping[str, Shadow] = field(default_factory=dict[str, Shadow])
    """Maps an alias in lower case to its shadow, a version that also answers part of its requests."""

    def resolve(self, name: str) -> Adapter:
        """Return the adapter with the name `alias` or `alias@version`, ignoring case. A short name
        from the settings can replace the alias.

        For an alias alone, returns its active version. Raises `UnknownAdapterError`. Never returns the base.
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
        """Return the adapter for each name in `parts`, with the weight given there. Raises the errors of
        `resolve`.
        """
        return [(self.resolve(name), weight) for name, weight in parts]

    def is_adapter(self, name: str) -> bool:
        """True if `name` is the name of an adapter, as `resolve` understands it."""
        try:
            self.resolve(name)
        except UnknownAdapterError:
            return False
        return True

    def is_base(self, name: str) -> bool:
        """True if `name` means the base: `base`, or one of the base's names that is not also an adapter's
        name.
        """
        return name.strip().lower() == "base" or (self.has_base(name) and not self.is_adapter(name))

    def has_base(self, name: str) -> bool:
        """True if `name` is `base` or one of the base's names, even if it is an adapter's name too."""
        asked = name.strip().lower()
        return any(asked == one.lower() for one in ("base", self.base_name, *self.base_aliases))

    def aliases(self) -> tuple[str, ...]:
        """Every alias, spelled as in its active version, sorted."""
        return tuple(self._active(alias).alias for alias in sorted(self.by_alias))

    def versions(self, alias: str) -> tuple[Adapter, ...]:
        """Return every version of an alias or short name, sorted by version. Raises `UnknownAdapterError`."""
        return tuple(self.by_alias[self._known(alias)].values())

    def active(self, alias: str) -> Adapter:
        """Return the active version of an alias or short name. Raises `UnknownAdapterError`."""
        return self._active(self._known(alias))

    def adapters(self) -> tuple[Adapter, ...]:
        """Every version of every alias, sorted by alias and then by version."""
        return tuple(adapter for alias in sorted(self.by_alias) for adapter in self.by_alias[alias].values())

    def by_digest(self, digest: str) -> Adapter:
        """Return the adapter with this digest. If several versions have it, prefer an active version. Raises
        `UnknownAdapterError`.
        """
        if digest not in self._digests:
            raise UnknownAdapterError(digest)
        return self._digests[digest]

    def divided_alias(self, name: str) -> str | None:
        """Return the alias, in lower case, that `name` means, if it has canaries or a shadow. None
        otherwise.
        """
        alias = self._alias(name)
        return alias if alias in self.splits or alias in self.shadows else None

    def languages(self) -> dict[str, str]:
        """Maps each language code to an alias: the one in the settings, else the only alias whose active
        version has that language.

        An alias that is spelled like a language code is only a name: it does not take that language from
        another alias.
        """
        return {code: self._active(alias).alias for code, alias in sorted(self._by_language.items())}

    def contested_languages(self) -> dict[str, tuple[str, ...]]:
        """Maps a language code to its aliases if several have that language and the settings choose none.
        Such a code names no adapter.
        """
        return {code: found for code, found in self._speakers.items() if code not in self._by_language}

    def topics(self) -> dict[str, Adapter]:
        """Maps each alias to its active version, for those that have example questions and can be served."""
        found = (self._active(alias) for alias in sorted(self.by_alias))
        return {one.alias: one for one in found if one.examples and one.problem is None}

    @property
    def routing_state(self) -> tuple[object, ...]:
        """The languages and example questions that routing depends on. If they change, the router must be
        built again.
        """
        topics = tuple((alias, one.language, one.examples) for alias, one in self.topics().items())
        return (*self.languages().items(), *topics)

    @cached_property
    def imported(self) -> str | None:
        """Return the alias of the adapter that was imported from an earlier OneSeek installation. None if
        there is none.

        If several were imported, prefer one without a language, since language routing never chooses it, then
        the first by name.
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
        """Return the alias, in lower case, that `name` means: an alias, a short name, or a language of
        exactly one alias. None if there is none.
        """
        name = name.strip().lower()
        return name if name in self.by_alias else self._short.get(name)

    @cached_property
    def _short(self) -> dict[str, str]:
        named = {**self._by_language, **self.short_names}
        return {name.lower(): alias.lower() for name, alias in named.items()}

    @cached_property
    def _by_language(self) -> dict[str, str]:
        """Maps each language code to the alias for that language, both in lower case."""
        spoken = {code: found[0] for code, found in self._speakers.items() if len(found) == 1}
        return {code.lower(): alias.lower() for code, alias in {**spoken, **self.spoken}.items()}

    @cached_property
    def _speakers(self) -> dict[str, tuple[str, ...]]:
        """Maps each language code to the aliases whose active version has that language, sorted.

        Aliases with example questions are for a topic. They count only if all aliases with that language have
        examples.
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
