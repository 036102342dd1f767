"""Store which version of each alias is active, which versions are retired, and how requests are divided.

All of this is in registry/active.json. The file is replaced as a whole, so readers need no lock: they see the
old state or the new one. If the file does not name an alias, the order in which its versions were found
decides which is active (see `active_versions`). Searching for adapters does not change the file.
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
"""Format number of an active.json without canaries, shadows and folders outside the registry. Every release
of OneSeek reads it.
"""
_DIVIDED = 2
"""Format number of an active.json with canaries or shadows. Releases without these features refuse to read
it, because they would send the canaries' requests to the active version.
"""
_FOLDERS = 3
"""Format number of an active.json that names versions outside the registry. Earlier releases would report
such versions as missing.
"""
_MAX_BYTES = 16 << 20
_MAX_HISTORY = 256
REMEDY = "Restore the file, or rebuild it from the ledger: oneseek adapters repair"


class PointersError(FileRefusedError):
    """The file of active versions is missing, damaged, or in an unknown format."""


@dataclass(frozen=True, slots=True)
class AliasState:
    """State of one alias: its active and retired versions, its canaries and its shadow. Versions are in lower
    case.
    """

    history: tuple[str, ...] = ()
    """Versions in the order in which they became active. The last one is active now."""
    retired: frozenset[str] = frozenset()
    """Retired versions: their files are kept, but they are not served."""
    split: TrafficSplit | None = None
    """How the alias's requests are divided between its versions. None: all go to the active version."""
    shadow: Shadow | None = None
    """The shadow: a version that also answers part of the requests, but clients never see its answers. None
    if there is none.
    """
    folders: Mapping[str, FolderRecord] = field(default_factory=dict[str, FolderRecord])
    """Maps each version in `history` and `retired` that is outside the registry to the record of its
    folder.
    """

    @property
    def divided_versions(self) -> tuple[str, ...]:
        """The versions that get a part of the requests, and the shadow."""
        split = tuple(self.split.shares) if self.split is not None else ()
        return (*split, self.shadow.version) if self.shadow is not None else split


@dataclass(frozen=True, slots=True)
class AliasPointers:
    """The active and retired versions of all aliases, and their canaries and shadows. Immutable: each change
    returns a new object.
    """

    states: Mapping[str, AliasState] = field(default_factory=dict[str, AliasState])
    """Maps each alias in lower case to its state."""

    @classmethod
    def read(cls, registry: Path) -> AliasPointers:
        """Read active.json in the folder `registry`. Empty if it does not exist. Raises `PointersError` if it
        is damaged.
        """
        path = registry / ACTIVE_FILE
        if not os.path.lexists(path):
            return cls()
        try:
            fields = read_object(path, _MAX_BYTES, PointersError)
        except PointersError as problem:
            raise PointersError(path, problem.reason, REMEDY) from problem
        if fields.get("format") not in (_FORMAT, _DIVIDED, _FOLDERS):
            reason = f"this OneSeek knows the formats {_FORMAT} to {_FOLDERS}"
            raise PointersError(
                path,
                reason,
                "Use the newer OneSeek that wrote the file.",
                field="format",
                value=fields.get("format"),
            )
        aliases: object = fields.get("aliases")
        if not isinstance(aliases, dict):
            raise PointersError(
                path, "the field must be a JSON object", REMEDY, field="aliases", value=aliases
            )
        return cls({alias: _state(path, alias, value) for alias, value in aliases.items()})

    def write(self, registry: Path) -> None:
        """Write active.json in the folder `registry` atomically. The caller must hold the registry's lock."""
        aliases = {alias: _state_to_json(state) for alias, state in sorted(self.states.items())}
        number = _DIVIDED if any(state.divided_versions for state in self.states.values()) else _FORMAT
        number = _FOLDERS if any(state.folders for state in self.states.values()) else number
        text = json.dumps({"format": number, "aliases": aliases}, indent=2)
        with staged_file(registry / ACTIVE_FILE) as path:
            path.write_text(f"{text}\n", encoding="utf-8", newline="\n")

    def state(self, alias: str) -> AliasState:
        """Return the state of `alias`: its active and retired versions, canaries and shadow. Empty if it is
        unknown.
        """
        return self.states.get(alias.lower(), AliasState())

    def is_retired(self, alias: str, version: str) -> bool:
        """True if `version` is retired: kept but not served."""
        return version.lower() in self.state(alias).retired

    def active(self, alias: str) -> str | None:
        """The active version of `alias`, in lower case. None if no version is recorded as active."""
        history = self.state(alias).history
        return history[-1] if history else None

    def promote(self, alias: str, version: str, folder: FolderRecord | None = None) -> AliasPointers:
        """Return a copy of all aliases' states in which `version` is the active version of `alias`, and no
        longer retired.

        If the active version changes, any canary and shadow of the alias end. `folder` is the record of the
        version's folder if it is outside the registry.
        """
        version, state = version.lower(), self.state(alias)
        retired, folders = state.retired - {version}, _noted(state.folders, version, folder)
        if state.history[-1:] == (version,):
            return self._with(alias, replace(state, retired=retired, folders=folders))
        history = (*state.history, version)[-_MAX_HISTORY:]
        return self._with(alias, AliasState(history, retired, folders=folders))

    def roll_back(self, alias: str, served: Collection[str]) -> AliasPointers | None:
        """Return a copy of all aliases' states in which `alias` is rolled back to its previously active
        version that is in `served`. None if there is no such version.

        Ends any canary and shadow of the alias.
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
        """Return a copy of all aliases' states in which `version` is not among the active and formerly active
        versions of `alias`. With `keep`, the version is listed as retired. `folder` is the record of its
        folder if it is outside the registry.
        """
        version, state = version.lower(), self.state(alias)
        history = _without_repeats([item for item in state.history if item != version])
        retired = state.retired | {version} if keep else state.retired - {version}
        folders = _noted(state.folders, version, folder)
        return self._with(alias, replace(state, history=history, retired=retired, folders=folders))

    def set_split(self, alias: str, split: TrafficSplit | None, shadow: Shadow | None) -> AliasPointers:
        """Return a copy of all aliases' states in which `alias` has the canaries in `split` and the shadow
        `shadow`. None removes the canaries or the shadow.
        """
        return self._with(alias, replace(self.state(alias), split=split, shadow=shadow))

    def _with(self, alias: str, state: AliasState) -> AliasPointers:
        known = {*state.history, *state.retired}
        if not state.folders.keys() <= known:
            kept = {version: record for version, record in state.folders.items() if version in known}
            state = replace(state, folders=kept)
        return AliasPointers({**self.states, alias.lower(): state})


def active_versions(kept: Iterable[Adapter], pointers: AliasPointers) -> tuple[dict[str, str], list[str]]:
    """Return the active version of each alias in `kept`. Also return a note for each alias whose promoted
    version cannot be served.

    `kept` holds the versions that were found for this base, including damaged versions. The version promoted
    last is active. If none was promoted, it is the highest version in the first searched place that has
    versions.
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
            notes.append(f"{alias}@{history[-1]} was promoted but cannot be served; serving {instead}")
    return found, notes


def first_version(versions: Iterable[tuple[AdapterPlace, str]]) -> str:
    """Return the highest version in the first searched place that has versions, in lower case. Used if no
    version was promoted.
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
    """Return `folders` with the record of `version` replaced by `folder`, or removed if `folder` is None."""
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
        reason = "the alias's state is damaged: it must hold its active, retired and divided versions"
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
        raise ValueError(
            "the recorded canaries are damaged and are not read: "
            "they must leave some requests to the active version"
        )
    return TrafficSplit(active, canaries, str(value["since"]))


def _shadow(value: Any) -> Shadow | None:
    if value is None:
        return None
    percent = check_percent("percent", value["percent"])
    return Shadow(names.version(value["version"]).lower(), percent, str(value["since"]))
