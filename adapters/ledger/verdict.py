"""Result of verifying a ledger: the faults that were found, and the ledger's state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FaultKind = Literal[
    "absent", "changed", "cut", "foreign-key", "forked", "head", "head-behind", "key", "moved", "removed",
    "repeated", "rotation", "torn",
]  # fmt: skip
LedgerState = Literal["intact", "repairable", "tampered", "absent"]
REPAIRABLE: tuple[FaultKind, ...] = ("head-behind", "rotation", "torn")
"""Kinds of faults that a crash can leave. `oneseek ledger repair` or the next added entry repairs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault in the ledger: a line or file that differs from what was signed."""

    kind: FaultKind
    file: str
    """Name of the file in the ledger's folder."""
    line: int | None = None
    """Number of the line in ledger.jsonl, from 1."""
    message: str

    @property
    def repairable(self) -> bool:
        """True if a crash explains the fault and no acknowledged entry is affected."""
        return self.kind in REPAIRABLE

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerVerdict:
    """Result of verifying a ledger."""

    folder: Path
    count: int
    """Number of different entries in the ledger with a valid signature by the key that they name."""
    last: str | None
    """Hash of the last entry signed by the ledger's key. Store it elsewhere, to check later that the entry is
    still in the ledger.
    """
    keys: tuple[str, ...]
    """The keys that signed the ledger's entries, oldest first, as `ed25519:…`."""
    known: frozenset[str]
    """Digests among the outputs of the ledger's entries, without revoked ones. Empty if the ledger was
    tampered with.
    """
    faults: tuple[Fault, ...]
    """The faults, sorted by line; faults without a line come last."""

    @property
    def state(self) -> LedgerState:
        """State of the ledger. `tampered` means that a crash cannot explain every fault."""
        if not self.faults:
            return "intact"
        if any(fault.kind == "absent" for fault in self.faults):
            return "absent"
        return "repairable" if all(fault.repairable for fault in self.faults) else "tampered"
