"""Which version of an alias is active, which were or are retired, and how its requests are divided.

All of it is in registry/active.json. The file is replaced whole, so whoever reads it without the registry's
lock meets one state or the next. An alias that it does not name has its highest version active, as in a
registry that was filled by hand.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import names
from adapters.errors import FileRefusedError
from adapters.files.atomic import staged_file
from adapters.files.jsonfile import read_object
from adapters.registry.traffic import Shadow, Split, checked_percent

if TYPE_CHECKING:
    from adapters.lora.manifest import Adapter

ACTIVE_FILE = "active.json"
_FORMAT = 1
"""Of a file that divides nothing, which every OneSeek reads."""
_DIVIDED = 2
"""Of one that does: one that cannot divide refuses it, rather than answer differently from the others."""
_MAX_BYTES = 16 << 20
_MAX_HISTORY = 256
_REMEDY = "Restore the file, or delete it: then the highest version of every alias is active."


class ActiveFileError(FileRefusedError):
    """The file of active versions is not what OneSeek writes."""


@dataclass(frozen=True, slots=True)
class Line:
    """What is known of one alias. Versions are in lower case."""

    history: tuple[str, ...] = ()
    """Versions in the order in which they became active; the last one is active."""
    retired: frozenset[str] = frozenset()
    """Versions that are kept and not served."""
    split: Split | None = None
    """How requests for the alias are divided between its versions; None: all go to the active one."""
    shadow: Shadow | None = None
    """What also answers a part of them, unseen."""

    @property
    def divided(self) -> tuple[str, ...]:
        """The versions that have a share or shadow one."""
        split = tuple(self.split.shares) if self.split is not None else ()
        return (*split, self.shadow.version) if self.shadow is not None else split


@dataclass(frozen=True, slots=True)
class Actives:
    """The state of all aliases. It never changes; each change answers a new state."""

    lines: Mapping[str, Line] = field(default_factory=dict[str, Line])
    """Alias in lower case → what is known of it."""

    @classmethod
    def read(cls, registry: Path) -> Actives:
        """The state in the folder `registry`; empty where there is none. Raises `ActiveFileError`."""
        path = registry / ACTIVE_FILE
        if not path.exists():
            return cls()
        fields = read_object(path, _MAX_BYTES, ActiveFileError)
        if fields.get("format") not in (_FORMAT, _DIVIDED):
            reason = f"this OneSeek knows the formats {_FORMAT} and {_DIVIDED}"
            raise ActiveFileError(
                path, reason, "Use the OneSeek that wrote it.", field="format", value=fields.get("format")
            )
        aliases: object = fields.get("aliases")
        if not isinstance(aliases, dict):
            raise ActiveFileError(path, "is not an object", _REMEDY, field="aliases", value=aliases)
        return cls({alias: _line(path, alias, value) for alias, value in aliases.items()})

    def write(self, registry: Path) -> None:
        """Replace the state in the folder `registry`, whole. Its lock must be held."""
        aliases = {alias: _plain(line) for alias, line in sorted(self.lines.items())}
        divided = any(line.divided for line in self.lines.values())
        text = json.dumps({"format": _DIVIDED if divided else _FORMAT, "aliases": aliases}, indent=2)
        with staged_file(registry / ACTIVE_FILE) as path:
            path.write_text(f"{text}\n", encoding="utf-8", newline="\n")

    def line(self, alias: str) -> Line:
        """What is known of `alias`."""
        return self.lines.get(alias.lower(), Line())

    def is_retired(self, alias: str, version: str) -> bool:
        """Whether `version` is kept and not served."""
        return version.lower() in self.line(alias).retired

    def active(self, alias: str) -> str | None:
        """The active version in lower case; None where nothing is recorded."""
        history = self.line(alias).history
        return history[-1] if history else None

    def promoted(self, alias: str, version: str) -> Actives:
        """With `version` active, and no longer retired where it was. A move ends what divided the alias."""
        version, line = version.lower(), self.line(alias)
        if line.history[-1:] == (version,):
            return self._with(alias, replace(line, retired=line.retired - {version}))
        return self._with(alias, Line((*line.history, version)[-_MAX_HISTORY:], line.retired - {version}))

    def rolled_back(self, alias: str, served: Collection[str]) -> Actives | None:
        """With the last version of `served` active that was so before the present one; None without any.

        It ends what divided the alias.
        """
        wanted = {version.lower() for version in served}
        history = _without_repeats([version for version in self.line(alias).history if version in wanted])
        if len(history) < 2:
            return None
        return self._with(alias, Line(history[:-1], self.line(alias).retired))

    def without(self, alias: str, version: str, *, keep: bool) -> Actives:
        """With `version` out of the history, and with `keep` among the retired."""
        version, line = version.lower(), self.line(alias)
        history = _without_repeats([item for item in line.history if item != version])
        retired = line.retired | {version} if keep else line.retired - {version}
        return self._with(alias, replace(line, history=history, retired=retired))

    def divided(self, alias: str, split: Split | None, shadow: Shadow | None) -> Actives:
        """With the requests for `alias` divided so."""
        return self._with(alias, replace(self.line(alias), split=split, shadow=shadow))

    def _with(self, alias: str, line: Line) -> Actives:
        return Actives({**self.lines, alias.lower(): line})


def active_versions(kept: Iterable[Adapter], actives: Actives) -> tuple[dict[str, str], list[str]]:
    """Alias → the version promoted last among `kept`, and a note for each alias whose last one is not there.

    An alias that was never promoted, or of whose promoted versions none is left, is absent.
    """
    served = {(adapter.alias.lower(), adapter.version.lower()) for adapter in kept}
    found: dict[str, str] = {}
    notes: list[str] = []
    for alias, line in actives.lines.items():
        left = [version for version in line.history if (alias, version) in served]
        if left:
            found[alias] = left[-1]
        if line.history and left[-1:] != [line.history[-1]] and any(name == alias for name, _ in served):
            instead = f"{alias}@{left[-1]}" if left else "the highest version"
            notes.append(
                f"{alias}@{line.history[-1]} is promoted and cannot be served; {instead} is, instead"
            )
    return found, notes


def _without_repeats(history: Sequence[str]) -> tuple[str, ...]:
    return tuple(version for version, _ in itertools.groupby(history))


def _plain(line: Line) -> dict[str, Any]:
    found: dict[str, Any] = {"history": list(line.history), "retired": sorted(line.retired)}
    if line.split is not None:
        found["split"] = {
            "active": line.split.active,
            "canaries": dict(line.split.canaries),
            "since": line.split.since,
        }
    if line.shadow is not None:
        shadow = line.shadow
        found["shadow"] = {"version": shadow.version, "percent": shadow.percent, "since": shadow.since}
    return found


def _line(path: Path, alias: str, value: Any) -> Line:
    try:
        names.alias(alias)
        history = tuple(names.version(version).lower() for version in value["history"])
        retired = frozenset(names.version(version).lower() for version in value["retired"])
        return Line(history, retired, _split(value.get("split")), _shadow(value.get("shadow")))
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        reason = "is not a history of versions, a list of retired ones, and shares of versions"
        raise ActiveFileError(path, reason, _REMEDY, field=f"aliases.{alias}"[:64], value=value) from problem


def _split(value: Any) -> Split | None:
    if value is None:
        return None
    found = [
        (names.version(version).lower(), checked_percent(version, percent))
        for version, percent in value["canaries"].items()
    ]
    canaries = tuple(sorted(found, key=lambda item: names.natural(item[0])))
    active = names.version(value["active"]).lower()
    if not canaries or active in dict(canaries) or sum(dict(canaries).values()) >= 100:
        raise ValueError("the canaries leave nothing to the active version")
    return Split(active, canaries, str(value["since"]))


def _shadow(value: Any) -> Shadow | None:
    if value is None:
        return None
    percent = checked_percent("percent", value["percent"])
    return Shadow(names.version(value["version"]).lower(), percent, str(value["since"]))
