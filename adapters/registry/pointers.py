"""Stores which version of each alias is active, which versions are retired, and how requests are divided
between versions.

Everything is in registry/active.json. The file is replaced whole, so readers need no lock: they see the old
state or the new one. If the file does not name an alias, the order in which its versions were found decides
(`active_versions`). Searching for adapters does not change the file.
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
from adapters.lora.manifest import PLACES
from adapters.registry.folders import FolderRecord, read_folders
from adapters.registry.traffic import Shadow, TrafficSplit, check_percent

if TYPE_CHECKING:
    from adapters.lora.manifest import Adapter, AdapterPlace

ACTIVE_FILE = "active.json"
_FORMAT = 1
"""Format of a file that divides no requests. Every OneSeek reads it."""
_DIVIDED = 2
"""Format of a file that divides requests. A release that cannot divide refuses it, instead of answering
differently.
"""
_FOLDERS = 3
"""Format of a file that names versions outside the registry. Earlier releases would report those as
missing.
"""
_MAX_BYTES = 16 << 20
_MAX_HISTORY = 256
REMEDY = "Restore the file, or rebuild it from the ledger: oneseek adapters repair"


class PointersError(FileRefusedError):
    """The file of active versions is not in a format that OneSeek writes."""


@dataclass(frozen=True, slots=True)
class AliasState:
    """The state of one alias. Versions are in lower case."""

    history: tuple[str, ...] = ()
    """Versions in the order in which they became active; the last one is active."""
    retired: frozenset[str] = frozenset()
    """Retired versions: their files are kept, but they are not served."""
    split: TrafficSplit | None = None
    """How the alias's requests are divided between its versions. None: all go to the active one."""
    shadow: Shadow | None = None
    """The version that also answers part of the requests, without its answers being shown. None if there is
    none.
    """
    folders: Mapping[str, FolderRecord] = field(default_factory=dict[str, FolderRecord])
    """Maps each version to its folder, for the versions in `history` and `retired` that are outside the
    registry.
    """

    @property
    def divided_versions(self) -> tuple[str, ...]:
        """The versions that have a share of the requests, or shadow them."""
        split = tuple(self.split.shares) if self.split is not None else ()
        return (*split, self.shadow.version) if self.shadow is not None else split


@dataclass(frozen=True, slots=True)
class AliasPointers:
    """The state of all aliases. It never changes: each change returns a new state."""

    states: Mapping[str, AliasState] = field(default_factory=dict[str, AliasState])
    """Maps each alias in lower case to its state."""

    @classmethod
    def read(cls, registry: Path) -> AliasPointers:
        """The state in the folder `registry`; empty if there is none. Raises `PointersError`."""
        path = registry / ACTIVE_FILE
        if not os.path.lexists(path):
            return cls()
        try:
            fields = read_object(path, _MAX_BYTES, PointersError)
        except PointersError as problem:
            raise PointersError(path, problem.reason, REMEDY) from problem
        if fields.get("format") not in (_FORMAT, _DIVIDED, _FOLDERS):
            raise PointersError(
                path,
                f"the file has an unknown format; this OneSeek reads the formats {_FORMAT} to {_FOLDERS}",
                "Use the newer OneSeek that wrote the file.",
                field="format",
                value=fields.get("format"),
            )
        aliases: object = fields.get("aliases")
        if not isinstance(aliases, dict):
            raise PointersError(path, "the field is not an object", REMEDY, field="aliases", value=aliases)
        return cls({alias: _state(path, alias, value) for alias, value in aliases.items()})

    def write(self, registry: Path) -> None:
        """Replace the state in the folder `registry` atomically. Hold the registry's lock when
        you call it.
        """
        aliases = {alias: _state_to_json(state) for alias, state in sorted(self.states.items())}
        number = _DIVIDED if any(state.divided_versions for state in self.states.values()) else _FORMAT
        number = _FOLDERS if any(state.folders for state in self.states.values()) else number
        text = json.dumps({"format": number, "aliases": aliases}, indent=2)
        with staged_file(registry / ACTIVE_FILE) as path:
            path.write_text(f"{text}\n", encoding="utf-8", newline="\n")

    def state(self, alias: str) -> AliasState:
        """Return the state of `alias`."""
        return self.states.get(alias.lower(), AliasState())

    def is_retired(self, alias: str, version: str) -> bool:
        """True if `version` is retired: kept but not served."""
        return version.lower() in self.state(alias).retired

    def active(self, alias: str) -> str | None:
        """The active version in lower case. None if none is recorded."""
        history = self.state(alias).history
        return history[-1] if history else None

    def promote(self, alias: str, version: str, folder: FolderRecord | None = None) -> AliasPointers:
        """Return the state with `version` active and not retired.

        If the active version changes, any split and shadow of the alias end. `folder` is the version's folder
        if it is outside the registry.
        """
        version, state = version.lower(), self.state(alias)
        retired, folders = state.retired - {version}, _noted(state.folders, version, folder)
        if state.history[-1:] == (version,):
            return self._with(alias, replace(state, retired=retired, folders=folders))
        history = (*state.history, version)[-_MAX_HISTORY:]
        return self._with(alias, AliasState(history, retired, folders=folders))

    def roll_back(self, alias: str, served: Collection[str]) -> AliasPointers | None:
        """Return the state with the previous active version that is in `served`. None if there is none.

        Ends any split and shadow of the alias.
        """
        wanted = {version.lower() for version in served}
        history = _without_repeats([version for version in self.state(alias).history if version in wanted])
        if len(history) < 2:
            return None
        state = self.state(alias)
        return self._with(alias, AliasState(history[:-1], state.retired, folders=state.folders))

    def drop(
        self, alias: str, version: str, *, keep: bool, folder: FolderRecord | None = None
    ) -> AliasPointers:
        """Return the state without `version` in the history. With `keep`, it is listed as retired. `folder`
        is as for `promote`.
        """
        version, state = version.lower(), self.state(alias)
        history = _without_repeats([item for item in state.history if item != version])
        retired = state.retired | {version} if keep else state.retired - {version}
        folders = _noted(state.folders, version, folder)
        return self._with(alias, replace(state, history=history, retired=retired, folders=folders))

    def set_split(self, alias: str, split: TrafficSplit | None, shadow: Shadow | None) -> AliasPointers:
        """Return the state in which the requests for `alias` are divided between versions as given."""
        return self._with(alias, replace(self.state(alias), split=split, shadow=shadow))

    def _with(self, alias: str, state: AliasState) -> AliasPointers:
        known = {*state.history, *state.retired}
        if not state.folders.keys() <= known:
            kept = {version: record for version, record in state.folders.items() if version in known}
            state = replace(state, folders=kept)
        return AliasPointers({**self.states, alias.lower(): state})


def active_versions(kept: Iterable[Adapter], pointers: AliasPointers) -> tuple[dict[str, str], list[str]]:
    """Return the active version of each alias, and a note for each alias whose promoted version is not in
    `kept`.

    `kept` holds the versions that were found, including damaged ones. The version promoted last is active. If
    none was promoted, it is the highest version in the first searched folder that has one. A promoted version
    that is not in `kept` is for another base.
    """
    held: dict[str, list[Adapter]] = {}
    for adapter in kept:
        held.setdefault(adapter.alias.lower(), []).append(adapter)
    found: dict[str, str] = {}
    notes: list[str] = []
    for alias, versions in held.items():
        served = {adapter.version.lower() for adapter in versions}
        history = pointers.state(alias).history
        left = [version for version in history if version in served]
        found[alias] = left[-1] if left else first_version((one.place, one.version) for one in versions)
        if history and left[-1:] != [history[-1]]:
            instead = f"{alias}@{found[alias]}"
            notes.append(
                f"{alias}@{history[-1]} was promoted but cannot be served, so the server serves {instead}"
            )
    return found, notes


def first_version(versions: Iterable[tuple[AdapterPlace, str]]) -> str:
    """Return the highest version in the first searched folder that has one, in lower case. Used if none was
    promoted.
    """
    found = list(versions)
    first = min(PLACES.index(place) for place, _ in found)
    here = [version.lower() for place, version in found if PLACES.index(place) == first]
    return max(here, key=names.natural)


def _without_repeats(history: Sequence[str]) -> tuple[str, ...]:
    return tuple(version for version, _ in itertools.groupby(history))


def _noted(
    folders: Mapping[str, FolderRecord], version: str, folder: FolderRecord | None
) -> dict[str, FolderRecord]:
    """Return `folders` with the present folder of `version`, or without it if the version is in
    the registry.
    """
    others = {key: record for key, record in folders.items() if key != version}
    return others if folder is None else {**others, version: folder}


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
    if state.folders:
        found["folders"] = {version: one.to_json() for version, one in sorted(state.folders.items())}
    return found


def _state(path: Path, alias: str, value: Any) -> AliasState:
    try:
        names.alias(alias)
        history = tuple(names.version(version).lower() for version in value["history"])
        retired = frozenset(names.version(version).lower() for version in value["retired"])
        folders = read_folders(value.get("folders"))
        return AliasState(history, retired, _split(value.get("split")), _shadow(value.get("shadow")), folders)
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise PointersError(
            path,
            "the field must hold the alias's history, its retired versions and their shares of requests",
            REMEDY,
            field=f"aliases.{alias}"[:64],
            value=value,
        ) from problem


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
        raise ValueError("the shares of the canaries add up to 100, so the active version gets no requests")
    return TrafficSplit(active, canaries, str(value["since"]))


def _shadow(value: Any) -> Shadow | None:
    if value is None:
        return None
    percent = check_percent("percent", value["percent"])
    return Shadow(names.version(value["version"]).lower(), percent, str(value["since"]))
