"""Check that the ledger knows an adapter's digest, wherever an adapter enters a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.errors import AdapterRejectedError, LedgerError
from adapters.ledger.ledger import Ledger
from adapters.lora.manifest import Adapter


@dataclass(frozen=True, slots=True)
class Provenance:
    """The digests that a verified ledger knew when it was read."""

    known: frozenset[str]
    folder: Path

    @classmethod
    def read(cls, folder: Path, public_key: Path | None = None) -> Provenance:
        """Verify the whole ledger in `folder`, against the key in the file `public_key` if there is one.

        An unfinished entry left by a crash is not a fault: it was never acknowledged. Raises `LedgerError` if
        there is no ledger, or it does not verify.
        """
        verdict = Ledger.open(folder).verify(public_key)
        if verdict.state in ("intact", "repairable"):
            return cls(verdict.known, folder)
        if verdict.state == "absent":
            raise LedgerError(
                folder,
                "the folder holds no ledger, but require_provenance is on",
                "Record each adapter with: oneseek adapters add FOLDER",
            )
        first, others = verdict.faults[0], len(verdict.faults) - 1
        more = f"; and {others} more" if others else ""
        raise LedgerError(
            folder,
            f"the ledger does not verify, but require_provenance is on ({first}{more})",
            "Run oneseek ledger verify to see every fault. Restore the ledger from a copy that verifies.",
        )

    def require(self, adapter: Adapter) -> None:
        """Raise `AdapterRejectedError` if the ledger does not know the adapter's digest."""
        if adapter.digest not in self.known:
            raise AdapterRejectedError(
                f"{adapter.full_name} in {adapter.path}: the ledger has no entry about its digest "
                f"{adapter.digest}, and require_provenance is on. "
                f"Record where it comes from: oneseek adapters add {adapter.path}"
            )
