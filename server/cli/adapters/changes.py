"""`oneseek adapters add`, `import`, `promote`, `rollback` and `retire`: what changes the registry."""

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
    str | None, Parameter(help="Public name; none takes what the adapter or its folder says.")
]
VersionFlag = Annotated[
    str | None,
    Parameter(help="Such as v1.1; none takes what the adapter or its folder says, else the next free one."),
]
LanguageFlag = Annotated[
    str | None, Parameter(help="ISO 639-1 code of the questions it answers, such as sv.")
]

DigestFlag = Annotated[
    str | None, Parameter(help="sha256:… that what is at a URL has to have; else nothing is added.")
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
    """Check a PEFT folder against the base and keep it in the registry as a version that never changes.

    The first version of an alias becomes active. Of an alias that is served already, from the registry or
    a folder, a new version waits for `oneseek adapters promote`.

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
        raise SettingsError("--digest", "pins what a URL names: give a URL, or leave it out")
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
    alpha: Annotated[float | None, Parameter(help="lora_alpha, where the file does not say it.")] = None,
    provenance: ProvenanceFlag = None,
    dry_run: DryRunFlag = False,
    json: Json = False,
) -> int:
    """Convert what an existing installation trained, and keep it in the registry. Needs torch.

    A folder is imported whole: what is refused is reported with its reason, the others become versions, and
    the exit code is 1. Say it again once the reason is gone: what is there already stays as it is. With a
    folder, --language is for those that tell none.

    A .pth is a pickle, which can run code when it is opened. It is opened in a process of its own, as
    weights alone, within limits of memory and time.

    Parameters
    ----------
    path
        A file such as weights/oneseek-7b-zero-v1.1.pth, whose .json is read too, or a folder such as weights.
    more
        Further ones.
    """
    from adapters.pth.bulk import NamesGiven
    from adapters.pth.importer import import_pickle
    from server.live.catalogue import open_base, open_registry

    name, alias = split_base(alias) if alias is not None else (None, None)
    if alpha is not None and not 0 < alpha <= 1e6:
        raise SettingsError("--alpha", f"{alpha:g} is not above 0 and at most a million")
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
    """Make a version the one that its alias stands for. A running server follows by itself.

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
    """Make the version active again that was so before the present one. Again walks further back.

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
    delete: Annotated[bool, Parameter(negative="", help="Delete its files as well.")] = False,
    json: Json = False,
) -> int:
    """Serve a version no longer, also after a restart. Its files stay, and promoting it brings it back.

    Parameters
    ----------
    name
        The version, as ALIAS@VERSION; not the active one while there are others.
    """
    from server.live.catalogue import open_registry

    entry = open_registry(resolved.settings).retire(name, delete=delete)
    summary = f"Retired and deleted {entry.full_name}."
    if not delete:
        again = promote_command(resolved, entry.full_name)
        summary = f"Retired {entry.full_name}; to serve it again: {again}"
    return report({"name": entry.full_name, "deleted": delete}, summary, json=json)


def repair(resolved: ResolvedSettings, *, json: Json = False) -> int:
    """Write a damaged or lost registry/active.json anew, from the changes that the ledger records.

    The ledger is verified first. The damaged file stays beside the new one.
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
        what = f"{adapter.full_name} was there already, with the same contents ({short})"
    if promotes is None:
        summary = f"{what}; it is active."
    else:
        summary = f"{what}, while {added.stands} stays active; it becomes active with: {promotes}"
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
            print(f"To serve it elsewhere, put this under adapters: in oneseek.yaml:\n  - {pinned}")
    return report(shown, summary, json=json)


def _unrouted(added: AddResult) -> list[str]:
    """Says of a new version without a language that no question finds it."""
    adapter = added.adapter
    if adapter.language is not None or not added.new:
        return []
    return [
        f"{adapter.full_name} has no language, so it answers only requests that name it. To route a language "
        f"to it, serve with --routing-languages CODE={adapter.alias}, or give --language CODE"
    ]


def _report_moved(moved: AliasMove, summary: str, *, json: bool) -> int:
    return report(
        {"before": name_of(moved.before), "after": moved.after.full_name, "path": str(moved.after.folder)},
        summary,
        json=json,
    )


def _unmoved(moved: AliasMove) -> str:
    return f"{moved.after.full_name} was active already."
