"""Implements `oneseek adapters list`, which prints the adapters that a server would serve, and those it would
not.
"""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from server.cli.flags import Json
from server.config.settings import ResolvedSettings

if TYPE_CHECKING:
    from adapters.lora.manifest import Adapter
    from adapters.registry.pointers import AliasPointers
    from server.live.catalogue import Catalogue


def list_adapters(resolved: ResolvedSettings, *, json: Json = False) -> int:
    """List the adapters that a server would serve, and those that were found but cannot be served."""
    from server.live.catalogue import open_catalogues, read_pointers

    catalogues = open_catalogues(resolved.settings)
    shares = _shares(read_pointers(resolved.settings.home / "registry"))
    if json:
        print(json_format.dumps(_catalogues_to_json(catalogues, shares), indent=2, ensure_ascii=False))
        return 0
    for catalogue in catalogues:
        _print_table(catalogue, shares)
    for note in (note for catalogue in catalogues for note in catalogue.notes):
        print(f"not served: {note}", file=sys.stderr)
    for warning in (warning for catalogue in catalogues for warning in catalogue.warnings):
        print(f"warning: {warning}", file=sys.stderr)
    versions = sum(len(catalogue.served.adapters()) for catalogue in catalogues)
    aliases = sum(len(catalogue.served.aliases()) for catalogue in catalogues)
    print(f"{_count(versions, 'version')} of {_count(aliases, 'alias')}.")
    return 0


def _shares(pointers: AliasPointers) -> dict[str, str]:
    """Maps each version's full name, in lower case, to its share of the requests. Only for aliases with
    canaries or a shadow.
    """
    found: dict[str, str] = {}
    for alias, state in pointers.states.items():
        for version, percent in (state.split.shares if state.split else {}).items():
            found[f"{alias}@{version}"] = f"{percent:g}%"
        if state.shadow is not None:
            found[f"{alias}@{state.shadow.version}"] = f"shadows {state.shadow.percent:g}%"
    return found


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def _print_table(catalogue: Catalogue, shares: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    served = catalogue.served
    table = Table(box=None, pad_edge=False)
    divided = ("share",) if shares else ()
    for name in ("adapter", "active", *divided, "language", "rank", "digest", "targets"):
        table.add_column(name, no_wrap=name != "targets")
    for adapter in served.adapters():
        active = "yes" if served.active(adapter.alias) == adapter else ""
        digest = adapter.digest.removeprefix("sha256:")[:12]
        what = "damaged, not served" if adapter.problem is not None else " ".join(adapter.targets)
        if adapter.problem is None and adapter.base_digest is None:
            what += " (unverified base)"
        rank = str(adapter.rank) if adapter.problem is None else ""
        about = (adapter.language or "", rank, digest, what)
        share = (shares.get(adapter.full_name.lower(), ""),) if shares else ()
        table.add_row(adapter.full_name, active, *share, *about)
    print(f"base {catalogue.base.name}: {catalogue.base.reason}")
    Console().print(table if table.row_count else "no adapters")


def _catalogues_to_json(catalogues: Sequence[Catalogue], shares: dict[str, str]) -> dict[str, object]:
    """Return the bases and their adapters as JSON. If there are several bases, each adapter also names its
    base.
    """
    every = [_catalogue_to_json(catalogue, shares) for catalogue in catalogues]
    if len(every) == 1:
        return every[0]
    return {
        "base": every[0]["base"],
        "bases": [one["base"] for one in every],
        "adapters": [
            adapter | {"base_name": catalogue.base.name}
            for one, catalogue in zip(every, catalogues, strict=True)
            for adapter in one["adapters"]
        ],
        "not_served": [note for catalogue in catalogues for note in catalogue.notes],
        "warnings": [warning for catalogue in catalogues for warning in catalogue.warnings],
    }


def _catalogue_to_json(catalogue: Catalogue, shares: dict[str, str]) -> dict[str, Any]:
    served = catalogue.served
    return {
        "base": {"name": served.base_name, "digest": served.base_digest},
        "adapters": [
            {
                **_adapter_to_json(item, served.active(item.alias) == item),
                "share": shares.get(item.full_name.lower()),
            }
            for item in served.adapters()
        ],
        "not_served": list(catalogue.notes),
        "warnings": list(catalogue.warnings),
    }


def _adapter_to_json(adapter: Adapter, active: bool) -> dict[str, object]:
    return {
        "name": adapter.full_name,
        "alias": adapter.alias,
        "version": adapter.version,
        "active": active,
        "language": adapter.language,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "targets": list(adapter.targets),
        "digest": adapter.digest or None,
        "base": "verified" if adapter.base_digest is not None else "unverified",
        "problem": adapter.problem,
        "path": str(adapter.path),
    }
