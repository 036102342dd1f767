"""Which version of an alias is active, which were or are retired, and how its requests are divided.

All of it is in registry/active.json. The file is replaced whole, so whoever reads it without the registry's
lock meets one state or the next. An alias that it does not name has its highest version active, as in a
registry that was filled by hand.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import names
from adapters.errors import FileRefusedError
from adapters.files.atomic import staged_file
from adapters.files.jsonfile import read_object
from adapters.registry.traffic import Shadow, TrafficSplit, check_percent

if TYPE_CHECKING:
    from adapters.lora.manifest import Adapter

ACTIVE_FILE = "active.json"
_FORMAT = 1
"""Of a file that divides nothing, which every OneSeek reads."""
_DIVIDED = 2
"""Of one that does: one that cannot divide refuses it, rather than answer differently from the others."""
_MAX_BYTES = 16 << 20
_MAX_HISTORY = 256
REMEDY = "Restore it, or write it anew from the ledger: oneseek adapters repair"


class PointersError(FileRefusedError):
    """The file of active versions is not what OneSeek writes."""


@dataclass(frozen=True, slots=True)
class AliasState:
    """What is known of one alias. Versions are in lower case."""

    history: tuple[str, ...] = ()
    """Versions in the order in which they became active; the last one is active."""
    retired: frozenset[str] = frozenset()
    """Versions that are kept and not served."""
    split: TrafficSplit | None = None
    """How requests for the alias are divided between its versions; None: all go to the active one."""
    shadow: Shadow | None = None
    """What also answers a part of them, unseen."""

    @property
    def divided_versions(self) -> tuple[str, ...]:
        """The versions that have a share or shadow one."""
        split = tuple(self.split.shares) if self.split is not None else ()
        return (*split, self.shadow.version) if self.shadow is not None else split


@dataclass(frozen=True, slots=True)
class AliasPointers:
    """The state of all aliases. It never changes; each change answers a new state."""

    states: Mapping[str, AliasState] = field(default_factory=dict[str, AliasState])
    """Alias in lower case → what is known of it."""

    @classmethod
    def read(cls, registry: Path) -> AliasPointers:
        """The state in the folder `registry`; empty where there is none. Raises `PointersError`."""
        path = registry / ACTIVE_FILE
        if not os.path.lexists(path):
            return cls()
        try:
            fields = read_object(path, _MAX_BYTES, PointersError)
        except PointersError as problem:
            raise PointersError(path, problem.reason, REMEDY) from problem
        if fields.get("format") not in (_FORMAT, _DIVIDED):
            reason = f"this OneSeek knows the formats {_FORMAT} and {_DIVIDED}"
            raise PointersError(
                path, reason, "Use the OneSeek that wrote it.", field="format", value=fields.get("format")
            )
        aliases: object = fields.get("aliases")
        if not isinstance(aliases, dict):
            raise PointersError(path, "is not an object", REMEDY, field="aliases", value=aliases)
        return cls({alias: _state(path, alias, value) for alias, value in aliases.items()})

    def write(self, registry: Path) -> None:
        """Replace the state in the folder `registry`, whole. Its lock must be held."""
        aliases = {alias: _state_to_json(state) for alias, state in sorted(self.states.items())}
        divided = any(state.divided_versions for state in self.states.values())
        text = json.dumps({"format": _DIVIDED if divided else _FORMAT, "aliases": aliases}, indent=2)
        with staged_file(registry / ACTIVE_FILE) as path:
            path.write_text(f"{text}\n", encoding="utf-8", newline="\n")

    def state(self, alias: str) -> AliasState:
        """What is known of `alias`."""
        return self.states.get(alias.lower(), AliasState())

    def is_retired(self, alias: str, version: str) -> bool:
        """Whether `version` is kept and not served."""
        return version.lower() in self.state(alias).retired

    def active(self, alias: str) -> str | None:
        """The active version in lower case; None where nothing is recorded."""
        history = self.state(alias).history
        return history[-1] if history else None

    def promote(self, alias: str, version: str) -> AliasPointers:
        """With `version` active, and no longer retired where it was. A move ends what divided the alias."""
        version, state = version.lower(), self.state(alias)
        if state.history[-1:] == (version,):
            return self._with(alias, replace(state, retired=state.retired - {version}))
        return self._with(
            alias, AliasState((*state.history, version)[-_MAX_HISTORY:], state.retired - {version})
        )

    def roll_back(self, alias: str, served: Collection[str]) -> AliasPointers | None:
        """With the last version of `served` active that was so before the present one; None without any.

        It ends what divided the alias.
        """
        wanted = {version.lower() for version in served}
        history = _without_repeats([version for version in self.state(alias).history if version in wanted])
        if len(history) < 2:
            return None
        return self._with(alias, AliasState(history[:-1], self.state(alias).retired))

    def drop(self, alias: str, version: str, *, keep: bool) -> AliasPointers:
        """With `version` out of the history, and with `keep` among the retired."""
        version, state = version.lower(), self.state(alias)
        history = _without_repeats([item for item in state.history if item != version])
        retired = state.retired | {version} if keep else state.retired - {version}
        return self._with(alias, replace(state, history=history, retired=retired))

    def set_split(self, alias: str, split: TrafficSplit | None, shadow: Shadow | None) -> AliasPointers:
        """With the requests for `alias` divided so."""
        return self._with(alias, replace(self.state(alias), split=split, shadow=shadow))

    def _with(self, alias: str, state: AliasState) -> AliasPointers:
        return AliasPointers({**self.states, alias.lower(): state})


def active_versions(kept: Iterable[Adapter], pointers: AliasPointers) -> tuple[dict[str, str], list[str]]:
    """Alias → the version promoted last among `kept`, and a note for each alias whose last one is not there.

    An alias that was never promoted, or of whose promoted versions none is left, is absent. A version that
    is damaged is among `kept`; one that is not there is for another base.
    """
    served = {(adapter.alias.lower(), adapter.version.lower()) for adapter in kept}
    found: dict[str, str] = {}
    notes: list[str] = []
    for alias, state in pointers.states.items():
        left = [version for version in state.history if (alias, version) in served]
        if left:
            found[alias] = left[-1]
        if state.history and left[-1:] != [state.history[-1]] and any(name == alias for name, _ in served):
            instead = f"{alias}@{left[-1]}" if left else "the highest version"
            notes.append(
                f"{alias}@{state.history[-1]} is promoted and cannot be served; {instead} is, instead"
            )
    return found, notes


def _without_repeats(history: Sequence[str]) -> tuple[str, ...]:
    return tuple(version for version, _ in itertools.groupby(history))


def _state_to_json(state: AliasState) -> dict[str, Any]:
    found: dict[str, Any] = {"history": list(state.history), "retired": sorted(state.retired)}
    if state.split is not None:
        found["split"] = {
            "active": state.split.active,
            "canaries": dict(state.split.canaries),
            "since": state.split.since,
        }
    if state.shadow is not None:
        shadow = state.shadow
        found["shadow"] = {"version": shadow.version, "percent": shadow.percent, "since": shadow.since}
    return found


def _state(path: Path, alias: str, value: Any) -> AliasState:
    try:
        names.alias(alias)
        history = tuple(names.version(version).lower() for version in value["history"])
        retired = frozenset(names.version(version).lower() for version in value["retired"])
        return AliasState(history, retired, _split(value.get("split")), _shadow(value.get("shadow")))
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        reason = "is not a history of versions, a list of retired ones, and shares of versions"
        raise PointersError(path, reason, REMEDY, field=f"aliases.{alias}"[:64], value=value) from problem


def _split(value: Any) -> TrafficSplit | None:
    if value is None:
        return None
    found = [
        (names.version(version).lower(), check_percent(version, percent))
        for version, percent in value["canaries"].items()
    ]
    canaries = tuple(sorted(found, key=lambda item: names.natural(item[0])))
    active = names.version(value["active"]).lower()
    if not canaries or active in dict(canaries) or sum(dict(canaries).values()) >= 100:
        raise ValueError("the canaries leave nothing to the active version")
    return TrafficSplit(active, canaries, str(value["since"]))


def _shadow(value: Any) -> Shadow | None:
    if value is None:
        return None
    percent = check_percent("percent", value["percent"])
    return Shadow(names.version(value["version"]).lower(), percent, str(value["since"]))
