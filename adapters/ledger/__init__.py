"""The ledger: an append-only, hash-chained and signed record of everything that makes or changes an adapter.
It decides nothing by itself: other modules decide what to do about an unknown adapter. Every package may
import it.

`docs/ledger.md` defines the format. Importing this package loads no cryptography; using it does.
"""

from __future__ import annotations

from adapters.ledger.ledger import Ledger
from adapters.ledger.lineage import Lineage
from adapters.ledger.record import Entry, Record
from adapters.ledger.verdict import Fault, LedgerVerdict

__all__ = ["Entry", "Fault", "Ledger", "LedgerVerdict", "Lineage", "Record"]
