"""Result of verifying a ledger: every fault with its line, and what it means."""

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
"""Faults that a crash can leave. The next entry or `oneseek ledger repair` repairs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault in the ledger: a difference from what was signed."""

    kind: FaultKind
    file: str
    """Name of the file in the ledger's folder."""
    line: int | None = None
    """Number of the line in ledger.jsonl, from 1."""
    message: str

    @property
    def repairable(self) -> bool:
        """True if a crash explains it and no acknowledged entry is affected."""
        return self.kind in REPAIRABLE

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerVerdict:
    """Result of verifying a ledger."""

    folder: Path
    count: int
    """Number of entries that are intact, in their place, and signed by the right key."""
    last: str | None
    """Hash of the last such entry. Note it elsewhere to check later that it is still in the chain."""
    keys: tuple[str, ...]
    """The keys that signed, oldest first, as `ed25519:…`."""
    known: frozenset[str]
    """Digests that these entries made and none revoked. Empty if the ledger was tampered with."""
    faults: tuple[Fault, ...]
    """The faults by line; those without a line come last."""

    @property
    def state(self) -> LedgerState:
        """State of the ledger: `tampered` if a crash cannot explain every fault."""
        if not self.faults:
            return "intact"
        if any(fault.kind == "absent" for fault in self.faults):
            return "absent"
        return "repairable" if all(fault.repairable for fault in self.faults) else "tampered"
