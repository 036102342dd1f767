"""Code that several verbs of `oneseek adapters` use: find an adapter, and print the result."""

from __future__ import annotations

import json as json_format
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from server.config.settings import ResolvedSettings, Settings

if TYPE_CHECKING:
    from adapters.lora.manifest import Adapter
    from adapters.registry.registry import VersionFolder


UNVERIFIED = (
    "the adapter records no base digest, so only its tensor shapes were checked; it now counts as made for "
    "this base"
)


def find_served(settings: Settings, name: str) -> tuple[Adapter | None, tuple[str, ...]]:
    """Return the adapter that a server would use for `name`. If there is none, return None and similar
    names.
    """
    from adapters.errors import UnknownAdapterError
    from server.live.catalogue import open_catalogues

    try:
        catalogues = open_catalogues(settings)
        place = catalogues[0].routing.names().index_of(name)
        return catalogues[place or 0].served.resolve(name), ()
    except UnknownAdapterError as error:
        return None, error.hints
    except (ValueError, LookupError, OSError):
        return None, ()


def report(shown: Mapping[str, Any], summary: str, *, json: bool) -> int:
    """Report success: with `json`, print `shown` and the summary as one JSON object; otherwise print the
    summary as a line.
    """
    if json:
        print(json_format.dumps({**shown, "summary": summary}, indent=2, ensure_ascii=False))
    else:
        print(summary)
    return 0


def adapter_to_json(adapter: Adapter) -> dict[str, Any]:
    """Return the JSON object that describes an adapter."""
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


def promote_command(resolved: ResolvedSettings, name: str) -> str:
    """Return the command that makes the version `name` active, with `--home` if it was given on this command
    line.
    """
    home = resolved.origins.get("home", "")
    flag = ["--home", str(resolved.settings.home)] if home.startswith("flag") else []
    return shlex.join(["oneseek", "adapters", "promote", name, *flag])


def name_of(entry: VersionFolder | None) -> str | None:
    """The version's full name, `alias@version`. None if there is no version."""
    return entry.full_name if entry is not None else None
