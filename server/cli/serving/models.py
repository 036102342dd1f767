"""`oneseek models`."""

from __future__ import annotations

import json as json_format
from pathlib import Path

from server.cli.flags import Json
from server.config.settings import ResolvedSettings


def models(resolved: ResolvedSettings, *, json: Json = False) -> int:
    """List the base models that are at hand, which one would be served, and why."""
    from adapters.bases import BASES, MINI_BASE, SHIPPED, find_base

    root = Path.cwd()
    chosen = find_base(root, resolved.settings.base_model)
    places = [(root / place, name) for place, name in BASES] + [(SHIPPED / "base", MINI_BASE)]
    there = [(name, path) for path, name in places if (path / "config.json").is_file()]
    others = [(name, path) for name, path in there if path.resolve() != chosen.path.resolve()]
    if json:
        shown = {
            "served": {"name": chosen.name, "path": str(chosen.path), "reason": chosen.reason},
            "others": [{"name": name, "path": str(path)} for name, path in others],
        }
        print(json_format.dumps(shown, indent=2, ensure_ascii=False))
        return 0
    print(f"served   {chosen.name}  {chosen.path}")
    print(f"because  {chosen.reason}")
    for name, path in others:
        print(f"also     {name}  {path}; serve it with --base-model {path}")
    return 0
