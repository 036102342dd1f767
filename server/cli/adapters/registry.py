"""What the verbs over the registry share: the registry, the base, names as flags, and how they report."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from server.config.settings import ResolvedSettings, Settings

if TYPE_CHECKING:
    from adapters.lora.manifest import Adapter
    from adapters.registry.registry import VersionFolder


P = ParamSpec("P")


def about_versions(
    verb: Callable[Concatenate[ResolvedSettings, P], int],
) -> Callable[Concatenate[ResolvedSettings, P], int]:
    """`verb`, which says of a name that is served and is no version of the registry how it becomes one."""

    @wraps(verb)
    def explained(resolved: ResolvedSettings, *args: P.args, **given: P.kwargs) -> int:
        from adapters.errors import RegistryError, UnknownAdapterError

        try:
            return verb(resolved, *args, **given)
        except UnknownAdapterError as error:
            served = _find_served(resolved.settings, error.name)
            if served is None:
                raise
            where = f"{served.full_name} is served from {served.path} and is no version of the registry"
            raise RegistryError(f"{where}. Add it first: oneseek adapters add {served.path}") from None

    return explained


def _find_served(settings: Settings, name: str) -> Adapter | None:
    """What a server would answer `name` with, where it would."""
    from server.live.catalogue import open_catalogues

    try:
        catalogues = open_catalogues(settings)
        place = catalogues[0].routing.names().owner(name)
        return catalogues[place or 0].served.resolve(name)
    except (ValueError, LookupError, OSError):
        return None


def report(shown: Mapping[str, Any], summary: str, *, json: bool) -> int:
    """End a verb that went well: one JSON object, or one line that says what it did."""
    if json:
        print(json_format.dumps({**shown, "summary": summary}, indent=2, ensure_ascii=False))
    else:
        print(summary)
    return 0


def adapter_to_json(adapter: Adapter) -> dict[str, Any]:
    """An adapter as JSON."""
    return {
        "name": adapter.full_name,
        "alias": adapter.alias,
        "version": adapter.version,
        "language": adapter.language,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "targets": list(adapter.targets),
        "digest": adapter.digest,
        "base_digest": adapter.base_digest,
        "path": str(adapter.path),
    }


def name_of(entry: VersionFolder | None) -> str | None:
    """The full name, where there is a version."""
    return entry.full_name if entry is not None else None
