"""Versions on trial while they serve: what is measured of each, and which answers count for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from adapters.lora.manifest import Adapter
from adapters.registry.snapshot import Snapshot
from adapters.registry.traffic import TrafficSplit, conversation_key
from server.metrics.pace import Pace
from server.rollout.outcomes import Window

TrialKind = Literal["canary", "shadow"]


@dataclass(slots=True, eq=False)
class Trial:
    """One split, or one shadow: its versions beside the active one, from when it was set."""

    kind: TrialKind
    alias: str
    """In lower case."""
    since: str
    windows: dict[str, Window] = field(default_factory=dict[str, Window])
    """Version in lower case → outcomes; for a shadow, the active version's of the same requests."""
    judged: int = 0
    """Outcomes at the last judgement."""

    def window(self, version: str) -> Window:
        """Where outcomes of `version` go."""
        return self.windows.setdefault(version, Window())

    @property
    def count(self) -> int:
        """Outcomes in all."""
        return sum(window.count for window in self.windows.values())


@dataclass(frozen=True, slots=True)
class ShadowRequest:
    """A version that is to answer a request as well."""

    adapter: Adapter
    window: Window


@dataclass(frozen=True, slots=True)
class ChosenVersion:
    """The version that answers a request which asked for an alias."""

    adapter: Adapter
    canary: bool = False
    windows: tuple[Window, ...] = ()
    """What remembers how that went."""
    shadow: ShadowRequest | None = None

    def record_answer(self, pace: Pace) -> None:
        """It answered."""
        for window in self.windows:
            window.add_answer(pace)

    def record_failure(self) -> None:
        """It did not, by the server's fault."""
        for window in self.windows:
            window.add_failure()


class Trials:
    """Every trial under way, by alias and the time it was set."""

    def __init__(self) -> None:
        self._trials: dict[tuple[TrialKind, str, str], Trial] = {}

    def __iter__(self) -> Iterator[Trial]:
        return iter(tuple(self._trials.values()))

    def of(self, kind: TrialKind, alias: str, since: str) -> Trial:
        """The trial, begun where it is new."""
        key = (kind, alias, since)
        if key not in self._trials:
            self._trials[key] = Trial(kind, alias, since)
        return self._trials[key]

    def keep(self, names: Snapshot) -> None:
        """Forget the trials that `names` no longer divides anything for."""
        live = {("canary", alias, split.since) for alias, split in names.splits.items()}
        live |= {("shadow", alias, shadow.since) for alias, shadow in names.shadows.items()}
        self._trials = {key: trial for key, trial in self._trials.items() if key in live}

    def choose(self, names: Snapshot, alias: str, conversation: tuple[str, ...]) -> ChosenVersion:
        """Which version of `alias`, which `names` divides, answers `conversation`, and what is told of it."""
        split, shadow = names.splits.get(alias), names.shadows.get(alias)
        key, active = conversation_key(conversation), names.active_versions[alias]
        version = active if split is None else split.version(alias, key)
        windows = (self._canary(alias, split, version),) if split is not None else ()
        shadowing = None
        # A shadow is measured against the active version, on the same requests.
        if shadow is not None and version == active and shadow.takes(alias, key):
            trial = self.of("shadow", alias, shadow.since)
            shadowing = ShadowRequest(names.by_alias[alias][shadow.version], trial.window(shadow.version))
            windows += (trial.window(active),)
        return ChosenVersion(names.by_alias[alias][version], version != active, windows, shadowing)

    def _canary(self, alias: str, split: TrafficSplit, version: str) -> Window:
        return self.of("canary", alias, split.since).window(version)
