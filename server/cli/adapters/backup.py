"""Implements `oneseek backup` and `oneseek restore`, which save and restore OneSeek's home folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from server.cli.adapters.registry import report
from server.cli.flags import Json
from server.config.settings import ResolvedSettings

if TYPE_CHECKING:
    from adapters.backup.check import CheckedHome
    from adapters.backup.manifest import BackupManifest


def backup(
    resolved: ResolvedSettings,
    file: Path,
    /,
    *,
    keys: Annotated[bool, Parameter(negative="--without-keys", show_default=False)] = True,
    json: Json = False,
) -> int:
    """Write the home's adapter registry, ledger and keys to one file, such as oneseek-backup.tar.gz.

    Every version is hashed and the ledger is verified first. A running server continues to serve, but changes
    to its registry wait. Built graphs and caches are left out, because a server makes them again.

    Parameters
    ----------
    file
        File to write. It must not exist yet.
    keys
        Include the ledger's signing key and the API keys (default). Protect such a file as you protect the
        keys. From a home restored without the signing key, adapters can be served, but not changed.
    """
    from adapters.backup.write import write_backup

    made = write_backup(resolved.settings.home, file, keys=keys)
    shown = {"file": str(file), "bytes": file.stat().st_size, "keys": keys} | _shown(
        made.manifest, made.contents
    )
    kept = "with keys" if keys else "without keys"
    summary = (
        f"{file} holds {made.contents.versions} versions and {made.contents.ledger_entries} ledger entries, "
        f"{kept}. Restore it with: oneseek restore {file} --home FOLDER"
    )
    return report(shown, summary, json=json)


def restore(
    resolved: ResolvedSettings,
    file: Path,
    /,
    *,
    public_key: Annotated[Path | None, Parameter(show_default=False)] = None,
    json: Json = False,
) -> int:
    """Restore a backup into OneSeek's home, which must not have a registry or ledger of its own.

    Before any file is written, each file's hash, the ledger's entries and signatures, and every version are
    checked. If a restore is interrupted, run it again.

    Parameters
    ----------
    file
        File that `oneseek backup` wrote.
    public_key
        PEM file of the ledger's public key. Default: the setting ledger_public_key, else the key in the
        backup.
    """
    from adapters.backup.restore import restore_backup

    key = public_key or resolved.settings.ledger_public_key
    done = restore_backup(file, resolved.settings.home, public_key=key)
    shown = {"home": str(done.home), "changed": done.changed} | _shown(done.manifest, done.contents)
    what = "now holds" if done.changed else "already had the backup's contents:"
    summary = (
        f"{done.home} {what} {done.contents.versions} versions and {done.contents.ledger_entries} ledger "
        f"entries, from the backup of {done.manifest.created}."
    )
    return report(shown, summary, json=json)


def _shown(manifest: BackupManifest, contents: CheckedHome) -> dict[str, Any]:
    return {
        "created": manifest.created,
        "oneseek": manifest.oneseek,
        "files": len(manifest.files),
        "versions": contents.versions,
        "unrecorded": list(contents.unrecorded),
        "ledger_entries": contents.ledger_entries,
        "ledger_last": contents.ledger_last,
    }
