"""Implements `oneseek config`, which prints the settings and their origins."""

from __future__ import annotations

import json as json_format

from server.cli.flags import Json
from server.config.settings import OPTIONS, ResolvedSettings


def config(resolved: ResolvedSettings, *, json: Json = False) -> int:
    """Show every setting with its value and its origin. For secrets, only show how many there are."""
    rows = [(item.name, item.render(resolved.value(item)), resolved.origins[item.path]) for item in OPTIONS]
    if json:
        shown = {name: {"value": value, "origin": origin} for name, value, origin in rows}
        print(json_format.dumps(shown, indent=2, ensure_ascii=False))
        return 0
    width = max(len(name) for name, _, _ in rows)
    room = max(len(value) for _, value, _ in rows)
    for name, value, origin in rows:
        print(f"{name:<{width}}  {value:<{room}}  {origin}")
    return 0
