"""A Compose file as Docker Compose reads it, as far as ours goes: variables, merges, secrets and mounts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

_VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of the host, or a named volume, in a container."""

    source: str
    target: str
    read_only: bool

    @property
    def named(self) -> bool:
        """True for a volume, which Compose makes."""
        return not self.source.startswith((".", "/"))


def read(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """The file with its variables replaced. Raises `ValueError` for one that has to be set and is not."""
    return cast("dict[str, Any]", _replace(yaml.safe_load(path.read_text(encoding="utf-8")), environ))


def read_env(path: Path) -> dict[str, str]:
    """A `.env` file."""
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return dict(cast("tuple[str, str]", tuple(line.split("=", 1))) for line in lines)


def mounts(service: Mapping[str, Any]) -> list[Mount]:
    """The volumes of a service, in Compose's short form."""
    found = (volume.split(":") for volume in service.get("volumes", ()))
    return [Mount(source, target, options == ["ro"]) for source, target, *options in found]


def seconds(text: str) -> int:
    """A duration such as `45s`."""
    return int(text.removesuffix("s"))


def _replace(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {name: _replace(item, environ) for name, item in items}
    if isinstance(value, list):
        return [_replace(item, environ) for item in cast("list[Any]", value)]
    if not isinstance(value, str):
        return value

    def one(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if text := environ.get(name):
            return text
        if kind == ":?":
            raise ValueError(f"{name} {rest}")
        return rest or ""

    return _VARIABLE.sub(one, value)
