"""What verification found: every fault by its line, and what it means."""

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
"""Faults that a crash leaves behind; the next entry, or `oneseek ledger repair`, mends them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is not as it was written."""

    kind: FaultKind
    file: str
    """Name of the file in the ledger's folder."""
    line: int | None = None
    """Line in ledger.jsonl, from 1."""
    message: str

    @property
    def repairable(self) -> bool:
        """Whether a crash explains it, and no entry that was acknowledged is touched."""
        return self.kind in REPAIRABLE

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerVerdict:
    """What a ledger is worth."""

    folder: Path
    count: int
    """Entries that are whole, in their place, and signed by the right key."""
    last: str | None
    """Hash of the last such entry; note it elsewhere, and `verify` tells whether it is still in the chain."""
    keys: tuple[str, ...]
    """The keys that signed, oldest first, as `ed25519:…`."""
    known: frozenset[str]
    """Digests that such entries made and none revoked since; none where the ledger was tampered with."""
    faults: tuple[Fault, ...]
    """In the order of their lines, those without a line last."""

    @property
    def state(self) -> LedgerState:
        """`tampered` where any fault is more than a crash explains."""
        if not self.faults:
            return "intact"
        if any(fault.kind == "absent" for fault in self.faults):
            return "absent"
        return "repairable" if all(fault.repairable for fault in self.faults) else "tampered"
