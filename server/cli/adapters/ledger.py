"""Implements `oneseek ledger`, which shows, verifies and repairs the ledger."""

from __future__ import annotations

import json as json_format
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from server.cli.adapters.registry import find_served
from server.cli.flags import Json
from server.config.settings import ResolvedSettings
from server.config.values import SettingsError

if TYPE_CHECKING:
    from rich.tree import Tree

    from adapters.ledger import Entry, Ledger, LedgerVerdict, Lineage

_SHORT = len("sha256:") + 12


def verify_ledger(
    resolved: ResolvedSettings,
    *,
    public_key: Annotated[Path | None, Parameter(show_default=False)] = None,
    anchor: str | None = None,
    json: Json = False,
) -> int:
    """Check each entry's position and signature, and that no last entries are missing. Report faults by line.

    Parameters
    ----------
    public_key
        PEM file of the ledger's public key. Default: the setting ledger_public_key, else the one beside
        the ledger.
    anchor
        Hash of an entry that must be in the ledger, as an earlier verify printed it.
    """
    if anchor is not None and not re.fullmatch("sha256:[0-9a-f]{64}", anchor):
        raise SettingsError("anchor", f"{anchor!r} is not a hash; use sha256: followed by 64 hex digits")
    verdict = _ledger(resolved).verify(public_key or resolved.settings.ledger_public_key, anchor=anchor)
    return _tell(verdict, json)


def repair(
    resolved: ResolvedSettings,
    *,
    new: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Repair what a crash left unfinished in the ledger, then verify it. Leaves tampered entries alone.

    Parameters
    ----------
    new
        Start a new ledger in place of one that was removed and cannot be restored.
    """
    ledger = _ledger(resolved, write=new)
    if new:
        ledger.begin_anew()
    return _tell(ledger.repair(), json)


def rotate(resolved: ResolvedSettings, *, json: Json = False) -> int:
    """Replace the ledger's signing key. The old key signs an entry that names the new key, and is deleted."""
    key = _ledger(resolved, write=True).rotate().text
    print(
        json_format.dumps({"key": key})
        if json
        else f"the ledger's key is now {key}; distribute the new public.pem to everyone who verifies it"
    )
    return 0


def show_lineage(resolved: ResolvedSettings, name: str, /, *, json: Json = False) -> int:
    """Show what an adapter was made from, as a tree down to base and data.

    Parameters
    ----------
    name
        alias@version, an alias or language for its active version, or a digest (at least its first 8 digits).
    """
    ledger = _ledger(resolved)
    verdict = ledger.verify(resolved.settings.ledger_public_key)
    lineage = _lineage(resolved, ledger, name)
    if json:
        shown = {"ledger": verdict.state, **lineage.to_json()}
        print(json_format.dumps(shown, indent=2, ensure_ascii=False))
    else:
        from rich.console import Console

        Console(markup=False, highlight=False).print(_tree(lineage))
    if verdict.state == "tampered":
        print("oneseek: the ledger does not verify; for details run: oneseek ledger verify", file=sys.stderr)
        return 1
    return 0


def _lineage(resolved: ResolvedSettings, ledger: Ledger, name: str) -> Lineage:
    """Return the ledger's entries about `name`. An alias or a language means the version that a server would
    use.

    Raises `UnknownInLedgerError` that suggests similar names, or says which version `name` means.
    """
    from adapters.errors import RegistryError, UnknownAdapterError, UnknownInLedgerError
    from server.live.catalogue import open_registry

    try:
        return ledger.lineage(name)
    except UnknownInLedgerError as error:
        unknown = error
    found, hints = find_served(resolved.settings, name)
    full_name = found.full_name if found is not None else None
    try:
        full_name = full_name or open_registry(resolved.settings).listing().find(name).full_name
    except UnknownAdapterError as error:
        hints = error.hints or hints
    except RegistryError:
        pass
    if full_name is None or full_name.lower() == name.lower():
        hint = f" Did you mean {' or '.join(hints)}?" if hints else ""
        raise UnknownInLedgerError(f"{unknown}{hint}")
    try:
        return ledger.lineage(full_name)
    except UnknownInLedgerError:
        folder = found.path if found is not None else "FOLDER"
        said = f"{name} means {full_name}, which the ledger does not record."
        raise UnknownInLedgerError(f"{said} To record it: oneseek adapters add {folder}") from None


def sign_adapter(resolved: ResolvedSettings, folder: Path, /) -> int:
    """Write an OpenSSF model signature, model.sig, into an adapter's folder, and record it in the ledger.

    Parameters
    ----------
    folder
        Folder in PEFT layout.
    """
    from adapters.ledger import artifact
    from adapters.lora.manifest import read_manifest

    adapter = read_manifest(folder)
    ledger = _ledger(resolved, write=True)
    print(f"made {artifact.sign_folder(folder, ledger, adapter.full_name, adapter.digest)}")
    return 0


def check_signature(resolved: ResolvedSettings, folder: Path, /, *, public_key: Path | None = None) -> int:
    """Check an adapter's folder against its signature, model.sig: no file may be changed, added or missing.

    Parameters
    ----------
    folder
        Folder of the adapter, which contains model.sig.
    public_key
        PEM file of the public key that belongs to the signature. Default: artifact-public.pem in the ledger's
        folder.
    """
    from adapters.ledger import artifact

    artifact.verify_folder(folder, public_key or _ledger(resolved).folder / artifact.PUBLIC_FILE)
    print(f"{folder} matches its signature model.sig")
    return 0


def list_entries(resolved: ResolvedSettings, *, json: Json = False) -> int:
    """List the ledger's entries, oldest first, without verifying them (see `oneseek ledger verify`)."""
    from adapters.ledger.lineage import entry_to_json

    entries = tuple(_ledger(resolved).entries())
    if json:
        print(
            json_format.dumps(
                {"entries": [entry_to_json(entry) for entry in entries]}, indent=2, ensure_ascii=False
            )
        )
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("entry", "time", "action", "subject", "made"):
        table.add_column(name, overflow="fold", no_wrap=name not in ("subject", "made"))
    for entry in entries:
        record = entry.record
        made = " ".join(f"{role} {one[:_SHORT]}" for role, one in record.outputs.items())
        table.add_row(str(entry.sequence), f"{entry.time[:19]}Z", record.action, record.subject, made)
    Console(markup=False, highlight=False).print(table if entries else "no entries")
    return 0


def _ledger(resolved: ResolvedSettings, *, write: bool = False) -> Ledger:
    from adapters.home import mark_home
    from server.live.catalogue import open_ledger

    if write:
        mark_home(resolved.settings.home)
    return open_ledger(resolved.settings)


def _tell(verdict: LedgerVerdict, json: bool) -> int:
    if json:
        shown = {
            "state": verdict.state,
            "entries": verdict.count,
            "last": verdict.last,
            "keys": list(verdict.keys),
            "faults": [
                {"kind": fault.kind, "file": fault.file, "line": fault.line, "message": fault.message}
                for fault in verdict.faults
            ],
        }
        print(json_format.dumps(shown, indent=2, ensure_ascii=False))
    else:
        for fault in verdict.faults:
            print(f"{fault}{' (repairable)' if fault.repairable else ''}")
        print(f"{verdict.state}: {verdict.count} entries in {verdict.folder}")
        if verdict.state == "repairable":
            print("The next entry repairs the ledger; to repair it now, run: oneseek ledger repair")
        elif verdict.last is not None:
            print(f"last entry {verdict.last}")
            print(f"key        {verdict.keys[-1]}")
    return 0 if verdict.state == "intact" else 1


def _tree(lineage: Lineage, into: Tree | None = None) -> Tree:
    from rich.tree import Tree

    words = (lineage.role, lineage.subject, lineage.digest and lineage.digest[:_SHORT])
    label = "  ".join(word for word in words if word)
    if lineage.repeated:
        label += "  (shown above)"
    elif not lineage.makers and lineage.digest is not None:
        label += "  (no entry in the ledger)"
    tree = Tree(label) if into is None else into.add(label)
    for entry in lineage.makers:
        tree.add(_line(entry, lineage.subject))
    for source in lineage.sources:
        _tree(source, tree)
    for entry in lineage.history:
        tree.add(_line(entry, lineage.subject))
    return tree


def _line(entry: Entry, subject: str | None) -> str:
    """Format a ledger entry as a line, with the URL that its adapter was fetched from. The line names the
    adapter, model or data that the entry is about, unless this is `subject`, which the reader knows already.
    """
    from rich.markup import escape

    metrics = "".join(f"  {name} {value:.4g}" for name, value in entry.record.metrics.items())
    code = entry.code.get("commit", "")[:12] or entry.code.get("oneseek", "")
    about = f" {entry.record.subject}" if entry.record.subject != subject else ""
    url = entry.record.details.get("url")
    source = f"\nfrom {escape(url)}" if isinstance(url, str) else ""
    return f"#{entry.sequence} {entry.record.action}{about}  {entry.time}  by {code}{metrics}{source}"
