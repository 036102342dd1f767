"""Check that OneSeek's home is undamaged: its ledger verifies, and every adapter version is as
it was added.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.backup.manifest import BackupError
from adapters.errors import AdapterError
from adapters.ledger.keys import PublicKey
from adapters.ledger.ledger import Ledger
from adapters.ledger.verdict import LedgerVerdict
from adapters.ledger.verify import judge_ledger
from adapters.registry.listing import RegistryListing


@dataclass(frozen=True, slots=True)
class CheckedHome:
    """The result of checking an undamaged home: how many adapter versions and ledger entries it holds."""

    versions: int
    """Number of adapter versions in the registry."""
    unrecorded: tuple[str, ...]
    """Full names of the adapter versions that have no entry in the ledger."""
    ledger_entries: int
    ledger_last: str | None
    """Hash of the ledger's last entry; None if the home has no ledger."""


def check_contents(home: Path, public_key: PublicKey | Path | None, shown: Path) -> CheckedHome:
    """Read and hash every adapter version in `home`, and verify the ledger. Errors name the path `shown`.

    No process may change `home` meanwhile. `public_key` is a trusted ledger key from elsewhere; by default
    the key beside the ledger is used. Raises `BackupError` for a damaged home, `LedgerError` for a key that
    cannot be read, and `OSError`.
    """
    verdict = _verify_ledger(home / "ledger", public_key, shown)
    listing = RegistryListing.read(home / "registry", ())
    unrecorded: list[str] = []
    entries = [entry for entry in listing.entries if entry.outside is None]
    for entry in entries:
        try:
            digest = entry.read().digest
        except AdapterError as problem:
            raise BackupError(
                shown,
                f"the adapter version {entry.full_name} is damaged: {problem.reason}",
                "For details run: oneseek adapters verify. Retire the version with --delete, "
                "or restore it from a backup.",
            ) from problem
        if verdict is not None and digest not in verdict.known:
            unrecorded.append(entry.full_name)
    if verdict is None:
        return CheckedHome(len(entries), tuple(entry.full_name for entry in entries), 0, None)
    return CheckedHome(len(entries), tuple(unrecorded), verdict.count, verdict.last)


def _verify_ledger(folder: Path, public_key: PublicKey | Path | None, shown: Path) -> LedgerVerdict | None:
    """Verify the ledger in `folder` and return the verdict; None if the ledger has no entries. Raises
    `BackupError` if the ledger does not verify.
    """
    if not Ledger.open(folder).begun:
        return None
    trusted = PublicKey.read(public_key) if isinstance(public_key, Path) else public_key
    verdict = judge_ledger(folder, trusted)
    if verdict.faults:
        raise BackupError(
            shown,
            f"the ledger does not verify: {verdict.faults[0].message}",
            "To see all faults of the ledger run: oneseek ledger verify. "
            "To repair the ledger run: oneseek ledger repair.",
        )
    return verdict
