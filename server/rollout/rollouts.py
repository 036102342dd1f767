"""Follows the canaries and shadows that the registry on disk asks for, and ends those that do worse.

A version gets its share once the engine has it. Its errors and its latency are compared with the active
version's every second; where they are worse beyond the limits, all requests go to the active version at once,
and then the registry and the ledger are told. What was ended so begins again only where it is set anew.
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
from server.rollout.outcomes import AnswerOutcome, TrialVerdict, judge_trial
from server.rollout.trials import ChosenVersion, Trial, Trials

CHECK_SECONDS = 1.0
"""Between two judgements."""
log = logging.getLogger("oneseek.rollout")


class Rollouts:
    """The canaries and shadows of one runtime. `registry` is what is told of an end; None tells nobody."""

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
        """Alias and time of what is not taken again."""
        self._refused: dict[tuple[str, str], frozenset[str]] = {}
        """Alias and time of a split → its canaries that the engine refuses."""
        self._held: dict[str, set[str]] = {}
        """Alias → the versions that are loaded for being divided between."""

    def choose(self, names: Snapshot, name: str, conversation: tuple[str, ...]) -> ChosenVersion | None:
        """What answers a request that asked for `name`; None where that is not an alias that is divided."""
        alias = names.divided_alias(name)
        return self._trials.choose(names, alias, conversation) if alias is not None else None

    async def run(self) -> None:
        """Judge again and again, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.check()
            except Exception:
                # A canary that nothing judges any more would be worse than a line a second.
                log.exception("versions on trial could not be judged")

    async def close(self) -> None:
        """Write what is not written yet, if that can be done within seconds."""
        await self._ends.close()

    async def start(self, home: Path) -> None:
        """Take up what the registry in `home` asks for."""
        problems: set[str] = set()
        try:
            await self.follow(await asyncio.to_thread(AliasPointers.read, home / "registry"), problems)
        except FileRefusedError as error:
            problems.add(str(error))
        for problem in sorted(problems):
            log.warning("%s", problem)

    async def follow(self, pointers: AliasPointers, problems: set[str]) -> bool:
        """Divide requests as `active_versions` says; False where a version is to be tried again."""
        done = True
        for alias in self._served.snapshot.by_alias:
            state = pointers.state(alias)
            if not state.divided_versions and alias not in self._held:
                continue
            split, shadow = self._wanted(alias, state.split, state.shadow, problems)
            try:
                split, shadow = await self._loaded(alias, split, shadow)
            except (AdapterNotLoadedError, EngineError) as error:
                problems.add(f"the requests for {alias} are not divided yet: {error}")
                done = False
                continue
            try:
                self._divide(alias, split, shadow)
            except (AdapterRejectedError, UnknownAdapterError) as error:
                problems.add(f"the requests for {alias} are not divided: {error}")
        return done

    def _wanted(
        self, alias: str, split: TrafficSplit | None, shadow: Shadow | None, problems: set[str]
    ) -> tuple[TrafficSplit | None, Shadow | None]:
        """What of a wish can be served: no version that is not held, none that was ended."""
        held, active = self._served.snapshot.by_alias[alias], self._served.snapshot.active_versions[alias]
        if split is not None and split.active != active:
            problems.add(f"{alias}@{active} is active, and the split is one of {split.active}: it waits")
            split = None
        if split is not None:
            missing = {version for version, _ in split.canaries if version not in held}
            problems |= {f"{alias}@{version} has a share and is not served here" for version in missing}
            split = replace(split, ended=self._refused.get((alias, split.since), frozenset()) | missing)
        if shadow is not None and shadow.version not in held:
            problems.add(f"{alias}@{shadow.version} is to be a shadow and is not served here")
            shadow = None
        over = self._over
        return (
            None if split is None or (alias, split.since) in over or len(split.shares) < 2 else split,
            None if shadow is None or (alias, shadow.since) in over else shadow,
        )

    async def _loaded(
        self, alias: str, split: TrafficSplit | None, shadow: Shadow | None
    ) -> tuple[TrafficSplit | None, Shadow | None]:
        """The same without what the engine refuses, the rest resident."""
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
        """Whether the engine has the version; where it refuses it, the share ends with a line in the log."""
        adapter = self._served.snapshot.by_alias[alias][version]
        self._residency.check_spare(adapter)
        try:
            await self._residency.ensure(adapter)
        except AdapterRefusedError as error:
            log.error("%s is refused by the engine, so it gets no share: %s", adapter.full_name, error)
            self._metrics.rollouts.labels(adapter.alias, adapter.version, "refused").inc()
            trial = Trial("canary" if kind == "canary" else "shadow", alias, since)
            self._ends.refused(trial, adapter)
            return False
        return True

    def _divide(self, alias: str, split: TrafficSplit | None, shadow: Shadow | None) -> None:
        """Change how the requests for an alias are divided, from the next one on."""
        before = self._served.snapshot
        if (split, shadow) != (before.splits.get(alias), before.shadows.get(alias)):
            self._served.divide(alias, split, shadow)
            log.info(
                "requests for %s: %s", alias, format_shares(split, shadow) or "all to the active version"
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
        """Judge every version on trial that has new outcomes, end what is worse, and have that written."""
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
        """The first version that is worse than the active one."""
        for version, ours in outcomes.items():
            if version != active:
                verdict = judge_trial(ours, outcomes.get(active, ()), self._options, time.monotonic())
                if verdict.problem:
                    return version, verdict
        return None

    def _end(self, trial: Trial, version: str, verdict: TrialVerdict) -> None:
        """Give every request of the trial to the active version, here and at once."""
        names = self._served.snapshot
        split, shadow = names.splits.get(trial.alias), names.shadows.get(trial.alias)
        if trial.kind == "canary":
            split = None
        else:
            shadow = None
        self._over.add((trial.alias, trial.since))
        adapter, active = names.by_alias[trial.alias][version], names.active(trial.alias)
        log.error(
            "rolled back: %s is worse than %s as a %s, which has ended: %s",
            adapter.full_name, active.full_name, trial.kind, verdict.problem,
        )  # fmt: skip
        self._divide(trial.alias, split, shadow)
        self._metrics.rollouts.labels(adapter.alias, adapter.version, "rolled_back").inc()
        self._ends.rolled_back(trial, adapter, verdict.problem, verdict.figures)

    def to_json(self) -> list[dict[str, Any]]:
        """Every trial under way, then those that ended here, the latest last; plain JSON for /health."""
        names = self._served.snapshot
        self._trials.keep(names)
        now = [_trial_to_json(trial, names) for trial in self._trials]
        return [*now, *self._ends.to_json()]


def _divided(names: Snapshot, alias: str) -> set[str]:
    """The versions that have or shadow a share."""
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
