"""Implements `oneseek models`, which lists the bases and adapters that a server would serve."""

from __future__ import annotations

import json as json_format
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.flags import Json
from server.config.settings import ResolvedSettings

if TYPE_CHECKING:
    from adapters.bases import FoundBase
    from server.config.each_base import BaseSettings


def models(resolved: ResolvedSettings, *, json: Json = False) -> int:
    """List the base models on this machine, which one would be served, and why."""
    from adapters.bases import BASES, MINI_BASE, SHIPPED, find_base
    from server.config.each_base import each_base

    root = Path.cwd()
    chosen = [
        (own, replace(base, name=own.name or base.name))
        for own in each_base(resolved.settings)
        for base in (find_base(root, own.settings.base_model),)
    ]
    taken = {base.path.resolve() for _, base in chosen}
    places = [(root / place, name) for place, name in BASES] + [(SHIPPED / "base", MINI_BASE)]
    there = [(name, path) for path, name in places if (path / "config.json").is_file()]
    others = [(name, path) for name, path in there if path.resolve() not in taken]
    if json:
        served = [_base_to_json(own, base) for own, base in chosen]
        shown = {
            "served": {key: served[0][key] for key in ("name", "path", "reason")},
            "bases": served,
            "others": [{"name": name, "path": str(path)} for name, path in others],
        }
        print(json_format.dumps(shown, indent=2, ensure_ascii=False))
        return 0
    for own, base in chosen:
        print(f"served   {base.name}  {base.path}" + ("  (on demand)" if own.on_demand else ""))
        print(f"because  {base.reason}")
    for name, path in others:
        remedy = (
            f"add it under bases: {path}" if resolved.settings.bases else f"serve it with --base-model {path}"
        )
        print(f"also     {name}  {path}; {remedy}")
    return 0


def _base_to_json(own: BaseSettings, base: FoundBase) -> dict[str, object]:
    return {
        "name": base.name,
        "path": str(base.path),
        "reason": base.reason,
        "quantize": own.settings.quantize,
        "engine": own.settings.engine.kind,
        "on_demand": own.on_demand,
    }
