"""Decides which adapters to load first and evict last, if there are more adapters than slots."""

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
    """Computes the priorities of the adapters from the names that are served now, so that a promoted version
    inherits its alias's priority.
    """

    served: ServedAdapters
    pinned: tuple[str, ...] = ()
    """Names from the setting `pinned_adapters`: aliases, or `alias@version`."""
    configured: tuple[str, ...] = ()
    """Full names (`alias@version`) of the adapters that the settings list."""
    default: str | None = None
    """The setting `routing.default`: the adapter that answers if routing cannot decide. None if not set."""
    in_memory_only: set[str] = field(default_factory=set[str])
    """Digests of adapters whose files are damaged, so that they could not be loaded again after an
    eviction.
    """

    def check(self, slots: int) -> None:
        """Raise `SettingsError` if a pinned name is unknown, or pinned adapters leave no slot for others."""
        names = self.served.snapshot
        for name in self.pinned:
            if not names.is_adapter(name):
                raise SettingsError(
                    "pinned_adapters",
                    f"adapter {name!r} is not served here; to see the names, run: oneseek adapters list",
                )
        pinned = {adapter.digest for adapter in self.pinned_adapters()}
        others = {adapter.digest for adapter in names.adapters() if adapter.problem is None} - pinned
        if len(pinned) > slots or (pinned and others and len(pinned) >= slots):
            raise SettingsError(
                "pinned_adapters",
                f"{len(pinned)} adapters are pinned, but the engine has only {slots} slots, and adapters "
                "that are not pinned need a slot too; pin fewer, or raise max_adapters",
            )

    def pinned_adapters(self) -> list[Adapter]:
        """Return the adapters that the names in `pinned` mean now."""
        return _resolved(self.served.snapshot, self.pinned)

    def preferred(self) -> list[Adapter]:
        """Return the pinned adapters, then the active ones of routed languages, then those that the settings
        list; each digest once.
        """
        names = self.served.snapshot
        routed = [*names.languages().values(), *filter(None, [self.default, names.imported])]
        return _once(_resolved(names, [*self.pinned, *routed, *self.configured]))

    def first(self, slots: int) -> list[Adapter]:
        """Return the adapters to load at the start, in order: all active ones if they fit into `slots` slots,
        else the first of the preferred ones.
        """
        every = self.actives()
        return every if len(every) <= slots else self.preferred()[:slots]

    def actives(self) -> list[Adapter]:
        """Return the preferred adapters, then the active versions of all other aliases."""
        names = self.served.snapshot
        return _once([*self.preferred(), *_resolved(names, names.aliases())])

    def kept(self) -> set[str]:
        """Return the digests that are never evicted: pinned ones, canaries, shadows, and those with damaged
        files.
        """
        names = self.served.snapshot
        trials = [names.by_alias[alias][shadow.version] for alias, shadow in names.shadows.items()]
        for alias, split in names.splits.items():
            trials += [names.by_alias[alias][version] for version, _ in split.canaries]
        return {adapter.digest for adapter in (*self.pinned_adapters(), *trials)} | self.in_memory_only

    def alias_of(self, digest: str) -> str:
        """Return the alias that metrics show for the adapter `digest`; `unknown` if it is not served."""
        try:
            return self.served.by_digest(digest).alias
        except UnknownAdapterError:
            return "unknown"


def _resolved(names: Snapshot, wanted: Iterable[str]) -> list[Adapter]:
    """Return the adapters named in `wanted`, except those that are damaged or no longer served."""
    found = [names.resolve(name) for name in wanted if names.is_adapter(name)]
    return [adapter for adapter in found if adapter.problem is None]


def _once(adapters: Sequence[Adapter]) -> list[Adapter]:
    return list({adapter.digest: adapter for adapter in adapters}.values())
