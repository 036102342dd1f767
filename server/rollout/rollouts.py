"""Runs the canaries and shadows that are set in the registry on disk, and ends those that do worse.

A version gets its share of the requests once it is loaded. Every second, its errors and latency are compared
with those of the active version. If they exceed the limits, all requests go to the active version at once,
and the end is written to the registry and the ledger. An ended trial starts again only if it is set again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapters.errors import AdapterRejectedError, FileRefusedError, UnknownAdapterError
from adapters.registry.pointers import AliasPointers
from adapters.registry.registry import Registry
from adapters.registry.served import Snapshot
from adapters.registry.traffic import Shadow, TrafficSplit, format_shares
from server.config.settings import RolloutOptions
from server.errors import AdapterNotLoadedError, AdapterRefusedError, EngineError
from server.live.runtime import Runtime
from server.rollout.ends import TrialEnds
from server.rollout.outcomes import AnswerOutcome, TrialVerdict, VersionFigures, judge_trial, summarize
from server.rollout.trials import ChosenVersion, Trial, Trials

CHECK_SECONDS = 1.0
"""Seconds between checks, which compare each canary and shadow with the active version of its alias."""
log = logging.getLogger("oneseek.rollout")


class Rollouts:
    """The canaries and shadows of one base. Their ends are written to `registry`, unless it is None."""

    def __init__(
        self,
        runtime: Runtime,
        options: RolloutOptions,
        registry: Registry | None,
    ) -> None:
        self._served = runtime.served
        self._residency = runtime.residency
        self._metrics = runtime.metrics
        self._options = options
        self._trials = Trials()
        self._ends = TrialEnds(runtime.served, runtime.metrics, registry)
        self._over: set[tuple[str, str]] = set()
        """(alias, time) of trials that have ended and do not start again."""
        self._refused: dict[tuple[str, str], frozenset[str]] = {}
        """Maps each (alias, time) of a split to its canaries that the engine cannot load."""
        self._held: dict[str, set[str]] = {}
        """Maps each alias to versions that are loaded for its split or shadow."""

    def choose(self, names: Snapshot, name: str, conversation: tuple[str, ...]) -> ChosenVersion | None:
        """Return the version that answers a request for `name`; None if the requests for this name are not
        divided between versions.
        """
        alias = names.divided_alias(name)
        return self._trials.choose(names, alias, conversation) if alias is not None else None

    async def run(self) -> None:
        """Compare canaries and shadows with the active versions repeatedly, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.check()
            except Exception:
                # A canary that nothing judges any more would be worse than a line a second.
                log.exception(
                    "comparing canaries and shadows with the active versions raised an unexpected error; "
                    "the server compares them again in a second"
                )

    async def close(self) -> None:
        """Write the ends of trials to the registry that are not written yet. Takes at most a few seconds."""
        await self._ends.close()

    async def start(self, home: Path) -> None:
        """Apply the canary splits and shadows of the registry in `home`."""
        problems: set[str] = set()
        try:
            await self.follow(await asyncio.to_thread(AliasPointers.read, home / "registry"), problems)
        except FileRefusedError as error:
            problems.add(str(error))
        for problem in sorted(problems):
            log.warning("%s", problem)

    async def follow(self, pointers: AliasPointers, problems: set[str]) -> bool:
        """Divide requests between versions as `pointers` (the registry's active.json) says. Adds what
        prevents this to `problems`. Returns False if a version should be tried again.
        """
        done = True
        for alias in self._served.snapshot.by_alias:
            state = pointers.state(alias)
            if not state.divided_versions and alias not in self._held:
                continue
            split, shadow = self._wanted(alias, state.split, state.shadow, problems)
            try:
                split, shadow = await self._loaded(alias, split, shadow)
            except (AdapterNotLoadedError, EngineError) as error:
                problems.add(
                    f"the requests for {alias} are not divided among versions yet; the server tries again: "
                    f"{error}"
                )
                done = False
                continue
            try:
                self._divide(alias, split, shadow)
            except (AdapterRejectedError, UnknownAdapterError) as error:
                problems.add(
                    f"the requests for {alias} are not divided among versions, so the active version gets "
                    f"all: {error}"
                )
        return done

    def _wanted(
        self, alias: str, split: TrafficSplit | None, shadow: Shadow | None, problems: set[str]
    ) -> tuple[TrafficSplit | None, Shadow | None]:
        """Return the parts of a canary split and a shadow that can be served: no missing versions, no ended
        trials.
        """
        held, active = self._served.snapshot.by_alias[alias], self._served.snapshot.active_versions[alias]
        if split is not None and split.active != active:
            problems.add(
                f"the canary of {alias} has ended, because the active version is now {active}, and was "
                f"{split.active} when the canary was set; set the canary again if you still want it"
            )
            split = None
        if split is not None:
            missing = {version for version, _ in split.canaries if version not in held}
            problems |= {
                f"{alias}@{version} is set as a canary, but this server does not serve it; it gets no "
                "requests"
                for version in missing
            }
            split = replace(split, ended=self._refused.get((alias, split.since), frozenset()) | missing)
        if shadow is not None and shadow.version not in held:
            problems.add(
                f"{alias}@{shadow.version} is set as a shadow, but this server does not serve it; it gets no "
                "requests"
            )
            shadow = None
        over = self._over
        return (
            None if split is None or (alias, split.since) in over or len(split.shares) < 2 else split,
            None if shadow is None or (alias, shadow.since) in over else shadow,
        )

    async def _loaded(
        self, alias: str, split: TrafficSplit | None, shadow: Shadow | None
    ) -> tuple[TrafficSplit | None, Shadow | None]:
        """Load the versions of a canary split and a shadow. Returns both without the versions that the engine
        cannot load.
        """
        if split is not None:
            for version in tuple(split.shares)[1:]:
                if not await self._takes("canary", alias, version, split.since):
                    split = replace(split, ended=split.ended | {version})
                    refused = self._refused.get((alias, split.since), frozenset[str]())
                    self._refused[alias, split.since] = refused | {version}
        if shadow is not None and not await self._takes("shadow", alias, shadow.version, shadow.since):
            self._over.add((alias, shadow.since))
            shadow = None
        return None if split is None or len(split.shares) < 2 else split, shadow

    async def _takes(self, kind: str, alias: str, version: str, since: str) -> bool:
        """True if the engine has loaded the version. If it cannot, the version's trial ends, and the reason
        is logged.
        """
        adapter = self._served.snapshot.by_alias[alias][version]
        self._residency.check_spare(adapter)
        try:
            await self._residency.ensure(adapter)
        except AdapterRefusedError as error:
            log.error(
                "the %s version of alias %s gets no requests, because the engine cannot load it: %s",
                kind,
                alias,
                error,
            )
            self._metrics.rollouts.labels(adapter.alias, adapter.version, "refused").inc()
            trial = Trial("canary" if kind == "canary" else "shadow", alias, since)
            self._ends.refused(trial, adapter)
            return False
        return True

    def _divide(self, alias: str, split: TrafficSplit | None, shadow: Shadow | None) -> None:
        """Change how requests for an alias are divided between versions, from the next request on."""
        before = self._served.snapshot
        if (split, shadow) != (before.splits.get(alias), before.shadows.get(alias)):
            self._served.divide(alias, split, shadow)
            log.info(
                "requests for the alias %s are now divided between versions: %s",
                alias,
                format_shares(split, shadow) or "all to the active version",
            )
        after = self._served.snapshot
        self._trials.keep(after)
        held, needed = self._held.pop(alias, set[str]()), _divided(after, alias)
        if needed:
            self._held[alias] = needed
        actives = {after.active(name).digest for name in after.by_alias}
        for version in held - needed:
            adapter = after.by_alias[alias].get(version)
            if adapter is not None and adapter.digest not in actives:
                self._residency.unload_later(adapter)

    async def check(self) -> None:
        """Judge every version on trial with new outcomes, end the trials of worse ones, and write these
        ends.
        """
        try:
            await self._judge_all()
        finally:
            self._ends.write_due()

    async def _judge_all(self) -> None:
        # A request that was chosen for before an end may have begun its trial again.
        self._trials.keep(self._served.snapshot)
        for trial in self._trials:
            if not self._options.automatic or trial.count == trial.judged:
                continue
            trial.judged = trial.count
            active = self._served.snapshot.active_versions[trial.alias]
            outcomes = {version: window.outcomes() for version, window in trial.windows.items()}
            found = await asyncio.to_thread(self._judge, outcomes, active)
            self._trials.keep(self._served.snapshot)
            if found is not None and trial in self._trials:
                self._end(trial, *found)

    def _judge(
        self, outcomes: Mapping[str, Sequence[AnswerOutcome]], active: str
    ) -> tuple[str, TrialVerdict] | None:
        """Return the first version that is worse than the active one, and the verdict; None if no version
        is.
        """
        for version, ours in outcomes.items():
            if version != active:
                verdict = judge_trial(ours, outcomes.get(active, ()), self._options, time.monotonic())
                if verdict.problem:
                    return version, verdict
        return None

    def _end(self, trial: Trial, version: str, verdict: TrialVerdict) -> None:
        """End a trial: send all its requests to the active version at once, log why, and record the end."""
        names = self._served.snapshot
        split, shadow = names.splits.get(trial.alias), names.shadows.get(trial.alias)
        if trial.kind == "canary":
            split = None
        else:
            shadow = None
        self._over.add((trial.alias, trial.since))
        adapter, active = names.by_alias[trial.alias][version], names.active(trial.alias)
        log.error(
            "adapter %s is worse than the active version %s, so its trial as %s was ended: %s",
            adapter.full_name, active.full_name, trial.kind, verdict.problem,
        )  # fmt: skip
        self._divide(trial.alias, split, shadow)
        self._metrics.rollouts.labels(adapter.alias, adapter.version, "rolled_back").inc()
        self._ends.rolled_back(trial, adapter, verdict.problem, verdict.figures)

    def figures(self) -> dict[tuple[str, str], VersionFigures]:
        """Return the measurements of every version on trial and of the active ones, by lower-case alias and
        version.

        This sorts all outcomes, so do not call it on the event loop.
        """
        start = time.monotonic() - self._options.window_seconds
        return {
            (trial.alias, version): summarize(window.outcomes(), start)
            for trial in self._trials
            for version, window in tuple(trial.windows.items())
        }

    def to_json(self) -> list[dict[str, Any]]:
        """Return running trials, then ended ones, the latest last, as plain JSON for /health."""
        names = self._served.snapshot
        self._trials.keep(names)
        now = [_trial_to_json(trial, names) for trial in self._trials]
        return [*now, *self._ends.to_json()]


def _divided(names: Snapshot, alias: str) -> set[str]:
    """Return the versions of an alias that are in its split (canary) or are its shadow."""
    split, shadow = names.splits.get(alias), names.shadows.get(alias)
    return {*(split.shares if split else ()), *((shadow.version,) if shadow else ())}


def _trial_to_json(trial: Trial, names: Snapshot) -> dict[str, Any]:
    split, shadow = names.splits.get(trial.alias), names.shadows.get(trial.alias)
    shares = split.shares if trial.kind == "canary" and split else {}
    if trial.kind == "shadow" and shadow is not None:
        shares = {shadow.version: shadow.percent}
    return {
        "adapter": names.active(trial.alias).alias,
        "kind": trial.kind,
        "state": "running",
        "since": trial.since,
        "shares": shares,
        "answers": {version: window.count for version, window in trial.windows.items()},
    }
