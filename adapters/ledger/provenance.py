"""Check that the ledger knows an adapter's digest before a server serves that adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.errors import AdapterRejectedError, LedgerError
from adapters.ledger.ledger import Ledger
from adapters.lora.manifest import Adapter


@dataclass(frozen=True, slots=True)
class Provenance:
    """The digests that the ledger knew when it was read and verified."""

    known: frozenset[str]
    folder: Path

    @classmethod
    def read(cls, folder: Path, public_key: Path | None = None) -> Provenance:
        """Read and verify the ledger in `folder`. `public_key` is a PEM file with the ledger's key; the
        default is the key in the folder.

        An unfinished entry left by a crash is not a fault: it was never acknowledged. Raises `LedgerError` if
        there is no ledger, or it does not verify.
        """
        verdict = Ledger.open(folder).verify(public_key)
        if verdict.state in ("intact", "repairable"):
            return cls(verdict.known, folder)
        if verdict.state == "absent":
            reason = "the folder holds no ledger, but require_provenance is on"
            remedy = "Record each adapter with: oneseek adapters add FOLDER"
            raise LedgerError(folder, reason, remedy)
        first, others = verdict.faults[0], len(verdict.faults) - 1
        more = f"; and {others} more" if others else ""
        reason = f"the ledger does not verify, but require_provenance is on ({first}{more})"
        remedy = "Run oneseek ledger verify to see every fault. Restore the ledger from a copy that verifies"
        raise LedgerError(folder, reason, remedy + ".")

    def require(self, adapter: Adapter) -> None:
        """Raise `AdapterRejectedError` if the ledger does not know the adapter's digest."""
        if adapter.digest not in self.known:
            raise AdapterRejectedError(
                f"{adapter.full_name} in {adapter.path}: the ledger has no entry about its digest "
                f"{adapter.digest}, and require_provenance is on. "
                f"Record where the adapter comes from: oneseek adapters add {adapter.path}"
            )
