"""Checks that a home is whole: its ledger verifies, and every version is what was added."""

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
    """The numbers of versions and ledger entries in a home that is not damaged."""

    versions: int
    """Number of versions in the registry."""
    unrecorded: tuple[str, ...]
    """Full names of the versions that have no entry in the ledger."""
    ledger_entries: int
    ledger_last: str | None
    """Hash of the ledger's last entry; None without a ledger."""


def check_contents(home: Path, public_key: PublicKey | Path | None, shown: Path) -> CheckedHome:
    """Read and hash every version in `home`, and judge its ledger. Reports problems as those of `shown`.

    Nobody may change `home` meanwhile. `public_key` is a ledger key from elsewhere. Default: the one beside
    the ledger. Raises `BackupError`, `LedgerError` for a key that cannot be read, and `OSError`.
    """
    verdict = _verify_ledger(home / "ledger", public_key, shown)
    listing = RegistryListing.read(home / "registry", ())
    unrecorded: list[str] = []
    entries = [entry for entry in listing.entries if entry.outside is None]
    for entry in entries:
        try:
            digest = entry.read().digest
        except AdapterError as problem:
            reason = f"{entry.full_name} is damaged: {problem.reason}"
            remedy = "See oneseek adapters verify. Retire it with --delete, or restore it from a backup."
            raise BackupError(shown, reason, remedy) from problem
        if verdict is not None and digest not in verdict.known:
            unrecorded.append(entry.full_name)
    if verdict is None:
        return CheckedHome(len(entries), tuple(entry.full_name for entry in entries), 0, None)
    return CheckedHome(len(entries), tuple(unrecorded), verdict.count, verdict.last)


def _verify_ledger(folder: Path, public_key: PublicKey | Path | None, shown: Path) -> LedgerVerdict | None:
    """Return the hash of the ledger's last entry. None if the ledger is empty."""
    if not Ledger.open(folder).begun:
        return None
    trusted = PublicKey.read(public_key) if isinstance(public_key, Path) else public_key
    verdict = judge_ledger(folder, trusted)
    if verdict.faults:
        reason = f"its ledger does not verify: {verdict.faults[0].message}"
        raise BackupError(
            shown,
            reason,
            "For details run: oneseek ledger verify. To fix the ledger run: oneseek ledger repair.",
        )
    return verdict
