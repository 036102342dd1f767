"""`oneseek adapters add`, `import`, `promote`, `rollback` and `retire`: what changes the registry."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from adapters import names
from routing.selection import split_base
from server.cli.adapters.registry import adapter_to_json, name_of, report
from server.cli.flags import Json
from server.config.settings import ResolvedSettings
from server.config.values import SettingsError, check_flag

if TYPE_CHECKING:
    from adapters.registry.registry import AddResult, AliasMove

UNVERIFIED = (
    "the adapter records no digest of its base, so that nothing but its shapes tells that it is for this "
    "one; from now on it is bound to this base"
)

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


def add(
    resolved: ResolvedSettings,
    folder: Path,
    /,
    *,
    alias: AliasFlag = None,
    version: VersionFlag = None,
    language: LanguageFlag = None,
    json: Json = False,
) -> int:
    """Check a PEFT folder against the base and keep it in the registry as a version that never changes.

    The first version of an alias becomes active; for later ones say `oneseek adapters promote`.

    Parameters
    ----------
    folder
        The folder with adapter_config.json and adapter_model.safetensors.
    """
    from server.live.catalogue import open_base, open_registry

    name, alias = split_base(alias) if alias is not None else (None, None)
    asked = _asked(alias, version, language)
    settings = resolved.settings
    added = open_registry(settings).add(
        folder, base=open_base(settings, folder, name), alias=asked[0], version=asked[1], language=asked[2]
    )
    return _report_added(added, "Added", json=json)


def import_file(
    resolved: ResolvedSettings,
    file: Path,
    /,
    *,
    alias: AliasFlag = None,
    version: VersionFlag = None,
    language: LanguageFlag = None,
    alpha: Annotated[float | None, Parameter(help="lora_alpha, where the file does not say it.")] = None,
    json: Json = False,
) -> int:
    """Convert the .pth of an existing installation and keep it in the registry. Needs torch.

    The file is a pickle, which can run code when it is opened. It is opened in a process of its own, as
    weights alone, within limits of memory and time.

    Parameters
    ----------
    file
        Such as weights/oneseek-7b-zero-v1.1.pth; a .json beside it is read too.
    """
    from adapters.pth.importer import import_pickle
    from server.live.catalogue import open_base, open_registry

    name, alias = split_base(alias) if alias is not None else (None, None)
    asked = _asked(alias, version, language or _ask_language(file, json=json))
    if alpha is not None and not 0 < alpha <= 1e6:
        raise SettingsError("--alpha", f"{alpha:g} is not above 0 and at most a million")
    settings = resolved.settings
    found = import_pickle(
        open_registry(settings),
        file,
        base=open_base(settings, name=name),
        alias=asked[0],
        version=asked[1],
        language=asked[2],
        alpha=alpha,
    )
    return _report_added(found.added, "Imported", json=json, warnings=found.warnings)


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
    """Serve a version no longer. Its files stay, and promoting it brings it back.

    Parameters
    ----------
    name
        The version, as ALIAS@VERSION; not the active one while there are others.
    """
    from server.live.catalogue import open_registry

    entry = open_registry(resolved.settings).retire(name, delete=delete)
    summary = f"{'Retired and deleted' if delete else 'Retired'} {entry.full_name}."
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


def _ask_language(file: Path, *, json: bool) -> str | None:
    """The language of a file that tells none, from whoever sits at the terminal; None if nobody does."""
    from adapters.pickles import told_language

    if json or not (sys.stdin.isatty() and sys.stderr.isatty()) or told_language(file) is not None:
        return None
    print(f"{file.name} does not say which language it answers.", file=sys.stderr)
    print(
        "Code of the language, such as sv (empty: it is asked for by name alone): ", end="", file=sys.stderr
    )
    sys.stderr.flush()
    return sys.stdin.readline().strip() or None


def _report_added(added: AddResult, did: str, *, json: bool, warnings: Sequence[str] = ()) -> int:
    adapter = added.adapter
    unverified = () if added.base_recorded else (UNVERIFIED,)
    warnings = [*warnings, *unverified, *_unrouted(added)]
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    short = adapter.digest.removeprefix("sha256:")[:12]
    if not added.new:
        summary = f"{adapter.full_name} was there already, with the same contents ({short})."
    elif added.active:
        summary = f"{did} {adapter.full_name} ({short}); it is active."
    else:
        promotes = f"oneseek adapters promote {adapter.full_name}"
        summary = f"{did} {adapter.full_name} ({short}); it becomes active with: {promotes}"
    shown = {**adapter_to_json(adapter), "new": added.new, "active": added.active, "warnings": warnings}
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
