"""Implements the verbs that change the registry: `oneseek adapters add`, `import`, `promote`, `rollback`,
`retire`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from adapters import names
from routing.selection import split_base
from server.cli.adapters.imports import (
    DryRunFlag,
    ProvenanceFlag,
    ask_language,
    import_several,
    provenance_of,
)
from server.cli.adapters.registry import UNVERIFIED, adapter_to_json, name_of, promote_command, report
from server.cli.flags import Json
from server.config.settings import ResolvedSettings
from server.config.values import SettingsError, check_flag

if TYPE_CHECKING:
    from adapters.registry.registry import AddResult, AliasMove

AliasFlag = Annotated[
    str | None, Parameter(help="Public name. Default: the one in the adapter's files or its folder's name.")
]
VersionFlag = Annotated[
    str | None,
    Parameter(help="Such as v1.1. Default: the one in the adapter's files, else the next free one."),
]
LanguageFlag = Annotated[
    str | None, Parameter(help="ISO 639-1 code of the language to route to it, such as sv.")
]

DigestFlag = Annotated[
    str | None, Parameter(help="Digest (sha256:…) that an adapter from a URL must have, or it is not added.")
]


def add(
    resolved: ResolvedSettings,
    folder: str,
    /,
    *,
    alias: AliasFlag = None,
    version: VersionFlag = None,
    language: LanguageFlag = None,
    digest: DigestFlag = None,
    json: Json = False,
) -> int:
    """Check a PEFT folder against the base and add it to the registry as a version that never changes.

    The first version of an alias becomes active. If the alias is already served, from the registry or a
    folder, promote the new version with `oneseek adapters promote`.

    Parameters
    ----------
    folder
        The folder with adapter_config.json and adapter_model.safetensors, or its URL: s3://, gs://, hf://
        (with @COMMIT to pin it) or https://.
    """
    from adapters.remote.pins import check_digest
    from adapters.remote.url import is_url
    from server.live.catalogue import open_base, open_registry

    name, alias = split_base(alias) if alias is not None else (None, None)
    asked = _asked(alias, version, language)
    pin = check_flag("--digest", digest, check_digest)
    settings = resolved.settings
    if is_url(folder):
        from server.cli.adapters.remote import add_url

        added, pinned = add_url(settings, folder, asked, pin)
        return _report_added(resolved, added, "Added", json=json, pinned=pinned)
    if pin is not None:
        raise SettingsError("--digest", "works with a URL only; give a URL, or remove it")
    added = open_registry(settings).add(
        Path(folder),
        base=open_base(settings, Path(folder), name),
        alias=asked[0],
        version=asked[1],
        language=asked[2],
    )
    return _report_added(resolved, added, "Added", json=json)


def import_file(
    resolved: ResolvedSettings,
    path: Path,
    /,
    *more: Path,
    alias: AliasFlag = None,
    version: VersionFlag = None,
    language: LanguageFlag = None,
    alpha: Annotated[float | None, Parameter(help="lora_alpha, if the file does not record it.")] = None,
    provenance: ProvenanceFlag = None,
    dry_run: DryRunFlag = False,
    json: Json = False,
) -> int:
    """Convert adapters of an earlier OneSeek installation and add them to the registry. Needs torch.

    From a folder, every adapter is imported. Adapters that cannot be imported are reported with the reason,
    and the exit code is 1. Fix the reason and run the command again; adapters that are already imported stay
    as they are. With a folder, --language applies to adapters that record no language.

    A .pth file is a pickle, which can run code when it is opened. It is opened in a separate process, as
    weights only, with limits of memory and time.

    Parameters
    ----------
    path
        A file such as weights/oneseek-7b-zero-v1.1.pth, whose .json is read too, or a folder such as weights.
    more
        More files or folders.
    """
    from adapters.pth.bulk import NamesGiven
    from adapters.pth.importer import import_pickle
    from server.live.catalogue import open_base, open_registry

    name, alias = split_base(alias) if alias is not None else (None, None)
    if alpha is not None and not 0 < alpha <= 1e6:
        raise SettingsError("--alpha", f"{alpha:g} is out of range; use a number above 0, up to a million")
    asked, settings = _asked(alias, version, language), resolved.settings
    if more or dry_run or path.is_dir():
        return import_several(
            settings,
            (path, *more),
            given=NamesGiven(alias=asked[0], version=asked[1], alpha=alpha),
            language=asked[2],
            provenance=provenance,
            dry_run=dry_run,
            json=json,
        )
    sources, details = provenance_of(provenance)
    found = import_pickle(
        open_registry(settings),
        path,
        base=open_base(settings, name=name),
        alias=asked[0],
        version=asked[1],
        language=asked[2] or check_flag("--language", ask_language(path, json=json), names.language),
        alpha=alpha,
        sources=sources,
        details=details,
    )
    return _report_added(resolved, found.added, "Imported", json=json, warnings=found.warnings)


def promote(resolved: ResolvedSettings, name: str, /, *, json: Json = False) -> int:
    """Make a version the active one of its alias. A running server switches to it without a restart.

    Parameters
    ----------
    name
        The version, as ALIAS@VERSION.
    """
    from server.live.catalogue import open_registry

    moved = open_registry(resolved.settings).promote(name)
    was = f" (before: {moved.before.version})" if moved.before is not None else ""
    did = f"Promoted {moved.after.full_name}{was}."
    return _report_moved(moved, did if moved.before != moved.after else _unmoved(moved), json=json)


def rollback(resolved: ResolvedSettings, alias: str, /, *, json: Json = False) -> int:
    """Make the alias's previously active version active again. Repeat the command to go further back.

    Parameters
    ----------
    alias
        The alias to roll back.
    """
    from server.live.catalogue import open_registry

    moved = open_registry(resolved.settings).rollback(alias)
    was = name_of(moved.before)
    return _report_moved(moved, f"Rolled back from {was} to {moved.after.full_name}.", json=json)


def retire(
    resolved: ResolvedSettings,
    name: str,
    /,
    *,
    delete: Annotated[bool, Parameter(negative="", help="Delete its files too.")] = False,
    json: Json = False,
) -> int:
    """Stop serving a version, also after a restart. Its files stay; promote the version to serve it again.

    Parameters
    ----------
    name
        The version, as ALIAS@VERSION. An active version can be retired only if its alias has no other.
    """
    from server.live.catalogue import open_registry

    entry = open_registry(resolved.settings).retire(name, delete=delete)
    summary = f"Retired and deleted {entry.full_name}."
    if not delete:
        again = promote_command(resolved, entry.full_name)
        summary = f"Retired {entry.full_name}; to serve it again: {again}"
    return report({"name": entry.full_name, "deleted": delete}, summary, json=json)


def repair(resolved: ResolvedSettings, *, json: Json = False) -> int:
    """Rebuild a damaged or lost registry/active.json from the changes that the ledger records.

    The ledger is verified first. A damaged active.json is kept beside the new one, under another name.
    """
    from server.live.catalogue import open_registry

    states = open_registry(resolved.settings).repair().states
    active = {alias: state.history[-1] for alias, state in sorted(states.items()) if state.history}
    listed = ", ".join(f"{alias}@{version}" for alias, version in active.items()) or "none"
    return report({"active": active}, f"Active versions: {listed}.", json=json)


def _asked(
    alias: str | None, version: str | None, language: str | None
) -> tuple[str | None, str | None, str | None]:
    return (
        check_flag("--alias", alias, names.alias),
        check_flag("--version", version, names.version),
        check_flag("--language", language, names.language),
    )


def _report_added(
    resolved: ResolvedSettings,
    added: AddResult,
    did: str,
    *,
    json: bool,
    warnings: Sequence[str] = (),
    pinned: str | None = None,
) -> int:
    adapter = added.adapter
    unverified = () if added.base_recorded else (UNVERIFIED,)
    warnings = [*warnings, *unverified, *_unrouted(added)]
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    short = adapter.digest.removeprefix("sha256:")[:12]
    promotes = None if added.active else promote_command(resolved, adapter.full_name)
    if added.new:
        what = f"{did} {adapter.full_name} ({short})"
    else:
        what = f"{adapter.full_name} already exists with the same contents ({short})"
    if promotes is None:
        summary = f"{what}; it is active."
    else:
        summary = f"{what}; {added.stands} stays active. To make the new one active: {promotes}"
    shown = {
        **adapter_to_json(adapter),
        "new": added.new,
        "active": added.active,
        "active_version": added.stands,
        "promote": promotes,
        "warnings": warnings,
    }
    if pinned is not None:
        shown["pinned"] = pinned
        if not json:
            print(
                f"To serve it on another server, add this under adapters: in its oneseek.yaml:\n  - {pinned}"
            )
    return report(shown, summary, json=json)


def _unrouted(added: AddResult) -> list[str]:
    """Return a warning if a new version has no language, since then no language is routed to it."""
    adapter = added.adapter
    if adapter.language is not None or not added.new:
        return []
    return [
        f"{adapter.full_name} has no language, so it answers only requests that name it. To route a language "
        f"to it, serve with --routing-languages CODE={adapter.alias}, or add it with --language CODE"
    ]


def _report_moved(moved: AliasMove, summary: str, *, json: bool) -> int:
    return report(
        {"before": name_of(moved.before), "after": moved.after.full_name, "path": str(moved.after.folder)},
        summary,
        json=json,
    )


def _unmoved(moved: AliasMove) -> str:
    return f"{moved.after.full_name} is already active."
