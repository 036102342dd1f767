"""Trials of versions (canaries and shadows): the measurements of each, and which answers count for it."""

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
    """A trial: the outcomes of a canary split or a shadow, and when it was set."""

    kind: TrialKind
    alias: str
    """The alias of the versions, in lower case."""
    since: str
    windows: dict[str, Window] = field(default_factory=dict[str, Window])
    """Maps each lower-case version to the outcomes of its answers. A shadow's trial also has the active
    version's outcomes for the same requests.
    """
    judged: int = 0
    """Number of outcomes when the trial was last judged."""

    def window(self, version: str) -> Window:
        """Return the window that records the outcomes of `version`."""
        return self.windows.setdefault(version, Window())

    @property
    def count(self) -> int:
        """Total number of answered and failed requests in this trial."""
        return sum(window.count for window in self.windows.values())


@dataclass(frozen=True, slots=True)
class ShadowRequest:
    """A shadow version that also answers a request, and the window that records the outcome."""

    adapter: Adapter
    window: Window


@dataclass(frozen=True, slots=True)
class ChosenVersion:
    """The version that answers a request for an alias, and the trials that record its outcome."""

    adapter: Adapter
    canary: bool = False
    windows: tuple[Window, ...] = ()
    """Windows (recent outcomes) of the trials that record this answer's outcome."""
    shadow: ShadowRequest | None = None

    def record_answer(self, pace: Pace) -> None:
        """Record a complete answer in the trials that it counts for."""
        for window in self.windows:
            window.add_answer(pace)

    def record_failure(self) -> None:
        """Record in these trials that the server failed to answer."""
        for window in self.windows:
            window.add_failure()


class Trials:
    """The running trials, by kind, alias and the time at which they were set."""

    def __init__(self) -> None:
        self._trials: dict[tuple[TrialKind, str, str], Trial] = {}

    def __iter__(self) -> Iterator[Trial]:
        return iter(tuple(self._trials.values()))

    def of(self, kind: TrialKind, alias: str, since: str) -> Trial:
        """Return the trial of this kind and alias that was set at this time; create it if it is new."""
        key = (kind, alias, since)
        if key not in self._trials:
            self._trials[key] = Trial(kind, alias, since)
        return self._trials[key]

    def keep(self, names: Snapshot) -> None:
        """Remove the trials whose canary split or shadow is no longer set in `names`."""
        live = {("canary", alias, split.since) for alias, split in names.splits.items()}
        live |= {("shadow", alias, shadow.since) for alias, shadow in names.shadows.items()}
        self._trials = {key: trial for key, trial in self._trials.items() if key in live}

    def choose(self, names: Snapshot, alias: str, conversation: tuple[str, ...]) -> ChosenVersion:
        """Choose the version of `alias` that answers a request, with the trials that record its outcome.

        `conversation` holds the texts that all requests of one conversation have in common, so that the same
        version answers all of them.
        """
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
