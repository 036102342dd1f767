"""Which adapters go first where there are more than slots: what is loaded at the start and evicted last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from adapters.errors import UnknownAdapterError
from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from adapters.registry.snapshot import Snapshot
from server.config.values import SettingsError


@dataclass(frozen=True, slots=True)
class Priorities:
    """Derived from what is served now, so that a promoted version takes over its alias's place."""

    served: ServedAdapters
    pinned: tuple[str, ...] = ()
    """Names from the setting `pinned_adapters`: aliases, or `alias@version`."""
    configured: tuple[str, ...] = ()
    """Full names of the adapters that the settings name."""
    default: str | None = None
    """What answers when nothing else decides, if that is an adapter."""
    in_memory_only: set[str] = field(default_factory=set[str])
    """Digests whose files are damaged on disk: evicted, they could not be loaded again."""

    def check(self, slots: int) -> None:
        """Raise `SettingsError` if a pinned name is unknown, or the pinned ones leave no slot to the rest."""
        names = self.served.snapshot
        for name in self.pinned:
            if not names.is_adapter(name):
                raise SettingsError("pinned_adapters", f"{name!r} is not an adapter that is served here")
        pinned = {adapter.digest for adapter in self.pinned_adapters()}
        others = {adapter.digest for adapter in names.adapters() if adapter.problem is None} - pinned
        if len(pinned) > slots or (pinned and others and len(pinned) >= slots):
            raise SettingsError(
                "pinned_adapters",
                f"{len(pinned)} adapters are pinned and the engine has {slots} slots: pin fewer, or raise "
                "max_adapters, so that a slot is left for the others",
            )

    def pinned_adapters(self) -> list[Adapter]:
        """What the pinned names stand for now."""
        return _resolved(self.served.snapshot, self.pinned)

    def preferred(self) -> list[Adapter]:
        """Pinned ones, the active ones of routed languages, then the configured ones; each digest once."""
        names = self.served.snapshot
        routed = [*names.languages().values(), *filter(None, [self.default, names.imported])]
        return _once(_resolved(names, [*self.pinned, *routed, *self.configured]))

    def first(self, slots: int) -> list[Adapter]:
        """What to load at the start, in order: the preferred; every active one too if all of them fit."""
        every = self.actives()
        return every if len(every) <= slots else self.preferred()[:slots]

    def actives(self) -> list[Adapter]:
        """The preferred, then what every other alias stands for."""
        names = self.served.snapshot
        return _once([*self.preferred(), *_resolved(names, names.aliases())])

    def kept(self) -> set[str]:
        """Digests that are never evicted: pinned, a canary or a shadow, or without whole files."""
        names = self.served.snapshot
        trials = [names.by_alias[alias][shadow.version] for alias, shadow in names.shadows.items()]
        for alias, split in names.splits.items():
            trials += [names.by_alias[alias][version] for version, _ in split.canaries]
        return {adapter.digest for adapter in (*self.pinned_adapters(), *trials)} | self.in_memory_only

    def alias_of(self, digest: str) -> str:
        """The alias that metrics count `digest` under."""
        try:
            return self.served.by_digest(digest).alias
        except UnknownAdapterError:
            return "unknown"


def _resolved(names: Snapshot, wanted: Iterable[str]) -> list[Adapter]:
    """The healthy adapters among those that `wanted` names; what is not served any more is left out."""
    found = [names.resolve(name) for name in wanted if names.is_adapter(name)]
    return [adapter for adapter in found if adapter.problem is None]


def _once(adapters: Sequence[Adapter]) -> list[Adapter]:
    return list({adapter.digest: adapter for adapter in adapters}.values())
