"""Implements the verbs that read the registry: `oneseek adapters show`, `verify`, `diff` and `export`."""

from __future__ import annotations

import json as json_format
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import Parameter

from adapters.errors import UnknownAdapterError
from server.cli.adapters.registry import adapter_to_json, find_served, report
from server.cli.adapters.shares import change_to_json
from server.cli.flags import Json
from server.config.settings import ResolvedSettings

if TYPE_CHECKING:
    from adapters.lora.compare import UpdateDistance
    from adapters.lora.manifest import Adapter
    from adapters.registry.listing import RegistryListing, VersionFolder
    from adapters.registry.verify import VersionVerdict


def show_version(resolved: ResolvedSettings, name: str, /, *, json: Json = False) -> int:
    """Show a version: its manifest, its model card, and whether it is active.

    Parameters
    ----------
    name
        The version as ALIAS@VERSION, or an alias for its active one.
    """
    from adapters.lora.card import read_card
    from adapters.lora.manifest import read_fields
    from adapters.registry.traffic import format_shares
    from server.live.catalogue import open_registry

    listing = open_registry(resolved.settings).listing()
    try:
        entry = listing.find(name)
    except UnknownAdapterError as error:
        served, near = find_served(resolved.settings, name)
        if served is None:
            raise UnknownAdapterError(name, error.hints or near) from None
        return _show_served(served, json=json)
    manifest, card = read_fields(entry.folder), read_card(entry.folder)
    flags = _state(listing, entry)
    shown = {"name": entry.full_name, "path": str(entry.folder), **flags, "manifest": manifest, "card": card}
    if entry.outside is not None:
        # A folder that nothing was noted of: what its files say.
        told = _read_json(entry)
        shown, manifest = {**told, **shown}, manifest or told
    if not json:
        _print_contents(entry.full_name, entry.folder, manifest, card)
        print(f"Lineage: oneseek ledger show {entry.full_name}")
    standing = "retired" if flags["retired"] else "active" if flags["active"] else "not active"
    marks = {item: " (retired)" if listing.is_retired(item) else "" for item in listing.versions(entry.alias)}
    versions = ", ".join(f"{item.version}{mark}" for item, mark in marks.items())
    state = listing.pointers.state(entry.alias)
    divided = f"; divided: {format_shares(state.split, state.shadow)}" if state.divided_versions else ""
    summary = f"{entry.full_name} is {standing}; versions of {entry.alias}: {versions}{divided}."
    return report(shown, summary, json=json)


def _read_json(entry: VersionFolder) -> dict[str, Any]:
    """Return what a version's files record. Empty if they are missing or damaged, which `oneseek adapters
    verify` reports.
    """
    from adapters.errors import AdapterError

    try:
        return adapter_to_json(entry.read())
    except AdapterError:
        return {}


def _show_served(adapter: Adapter, *, json: bool) -> int:
    """Print what is known about an adapter that is served from a folder, but is not in the registry. Returns
    the exit code.
    """
    from adapters.lora.card import read_card
    from adapters.lora.manifest import read_fields

    manifest, card = read_fields(adapter.path), read_card(adapter.path)
    if not json:
        _print_contents(adapter.full_name, adapter.path, manifest or adapter_to_json(adapter), card)
    summary = (
        f"{adapter.full_name} is served from its folder and is not in the registry; "
        f"to add it: oneseek adapters add {adapter.path}"
    )
    return report({**adapter_to_json(adapter), "manifest": manifest, "card": card}, summary, json=json)


def _print_contents(name: str, folder: Path, manifest: Mapping[str, Any], card: str) -> None:
    print(f"{name} in {folder}\n")
    for field, value in manifest.items():
        print(f"{field:<16}{_plain(value)}")
    # Its front matter repeats the fields. A card may hold what a terminal would obey.
    text = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    text = "".join(sign for sign in text if sign.isprintable() or sign == "\n")
    print(f"\n{text.strip()}\n")


def _plain(value: object) -> str:
    """Format a value from a manifest for people: lists and mappings of plain values without JSON's
    punctuation.
    """
    if isinstance(value, str) and value.isprintable():
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in cast("list[object]", value)):
        return ", ".join(map(_plain, cast("list[str]", value)))
    if isinstance(value, dict):
        return ", ".join(
            f"{_plain(key)} {_plain(item)}" for key, item in cast("dict[str, object]", value).items()
        )
    return json_format.dumps(value)


def verify_versions(resolved: ResolvedSettings, name: str | None = None, /, *, json: Json = False) -> int:
    """Check by their hashes that versions in the registry are unchanged. Exit code 1: one has changed.

    Parameters
    ----------
    name
        The version as ALIAS@VERSION, or an alias for its active one. Default: all versions.
    """
    from adapters.registry.verify import verify_version as verify_one
    from server.live.catalogue import open_base, open_registry

    listing, settings = open_registry(resolved.settings).listing(), resolved.settings
    kept = [entry for entry in listing.entries if entry.outside is None]
    entries = [listing.find(name)] if name else kept
    bases = [open_base(settings, entry.folder if settings.bases else None) for entry in entries]
    verdicts = [verify_one(entry, base) for entry, base in zip(entries, bases, strict=True)]
    broken = [verdict for verdict in verdicts if verdict.problem is not None]
    if not json:
        for verdict in verdicts:
            print(_line(verdict), file=sys.stderr if verdict.problem is not None else sys.stdout)
    summary = (
        f"{len(verdicts) - len(broken)} of {len(verdicts)} versions are unchanged since they were added."
    )
    report({"versions": [_verdict(verdict) for verdict in verdicts]}, summary, json=json)
    return 1 if broken else 0


def diff(resolved: ResolvedSettings, first: str, second: str, /, *, json: Json = False) -> int:
    """Compare two adapters: their configs, and in each module the size and direction of their LoRA updates.

    Parameters
    ----------
    first
        A version as ALIAS@VERSION, an alias for its active one, or a folder in PEFT layout.
    second
        Another version, alias or folder.
    """
    from adapters.lora.compare import compare_adapters
    from adapters.lora.weights import read_adapter
    from server.live.catalogue import open_base, open_registry

    listing = open_registry(resolved.settings).listing()
    a, b = (_adapter(listing, name) for name in (first, second))
    base = open_base(resolved.settings, a.path)
    found = compare_adapters(a, b, (read_adapter(a.path, base.shape), read_adapter(b.path, base.shape)))
    if not json:
        for field, (ours, theirs) in found.config.items():
            print(f"{field}: {json_format.dumps(ours)} → {json_format.dumps(theirs)}")
        width = max(len(row.name) for row in (*found.modules, found.whole))
        print(f"{'module':<{width}}  norm of each update    cosine")
        for row in (*found.modules, found.whole):
            print(f"{row.name:<{width}}  {row.first:>10.4g}  {row.second:>10.4g}  {_cosine(row)}")
    if a.digest == b.digest:
        summary = f"{first} and {second} are the same adapter."
    else:
        updates = f"updates with cosine {_cosine(found.whole).strip()}"
        summary = f"{first} and {second} differ: {updates}, and {len(found.config)} fields of their configs."
    shown: dict[str, Any] = {
        "first": adapter_to_json(a),
        "second": adapter_to_json(b),
        "config": {field: list(pair) for field, pair in found.config.items()},
        "modules": [_apart(row) for row in found.modules],
        "all": _apart(found.whole),
    }
    return report(shown, summary, json=json)


def export_version(
    resolved: ResolvedSettings,
    name: str,
    /,
    *,
    output: Annotated[Path, Parameter(help="Folder to make, or a file that ends in .zip.")],
    json: Json = False,
) -> int:
    """Export a version as a plain PEFT folder, which transformers and PEFT can load, or as a zip file of it.

    Parameters
    ----------
    name
        The version as ALIAS@VERSION, or an alias for its active one.
    """
    from adapters.registry.export import write_export as write
    from server.live.catalogue import open_registry

    entry = open_registry(resolved.settings).listing().find(name)
    path = write(entry, output)
    return report(
        {"name": entry.full_name, "path": str(path)}, f"Exported {entry.full_name} to {path}.", json=json
    )


def _state(listing: RegistryListing, entry: VersionFolder) -> dict[str, Any]:
    return {
        "active": listing.is_active(entry),
        "retired": listing.is_retired(entry),
        "history": list(listing.pointers.state(entry.alias).history),
        **change_to_json(listing.pointers.state(entry.alias)),
    }


def _adapter(listing: RegistryListing, name: str) -> Adapter:
    from adapters.lora.manifest import read_manifest

    folder = Path(name)
    return read_manifest(folder) if (folder / "adapter_config.json").is_file() else listing.find(name).read()


def _line(verdict: VersionVerdict) -> str:
    if verdict.problem is not None:
        return f"broken  {verdict.entry.full_name}: {verdict.problem}"
    return f"whole   {verdict.entry.full_name}{'' if verdict.fits else ', for another base'}"


def _verdict(verdict: VersionVerdict) -> dict[str, Any]:
    return {
        "name": verdict.entry.full_name,
        "whole": verdict.problem is None,
        "problem": verdict.problem,
        "fits_the_base": verdict.fits,
        "digest": verdict.adapter.digest if verdict.adapter is not None else None,
    }


def _apart(row: UpdateDistance) -> dict[str, Any]:
    return {"module": row.name, "norms": [row.first, row.second], "cosine": row.cosine}


def _cosine(row: UpdateDistance) -> str:
    return f"{row.cosine:>8.4f}" if row.cosine is not None else "       –"
