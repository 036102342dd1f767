"""What the ledger does not know does not enter."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.errors import AdapterRejectedError, LedgerError
from adapters.ledger import Ledger
from adapters.ledger.provenance import Provenance
from adapters.lora.manifest import Adapter


def adapter(digest: str) -> Adapter:
    return Adapter(
        alias="zero", version="v1", digest=digest, path=Path("zero"), rank=4, alpha=8, targets=("q_proj",)
    )


def test_only_a_digest_that_the_ledger_knows_enters(tmp_path: Path) -> None:
    known = Provenance(frozenset({"sha256:a"}), tmp_path)
    known.require(adapter("sha256:a"))
    with pytest.raises(AdapterRejectedError, match="require_provenance"):
        known.require(adapter("sha256:b"))


def test_no_ledger_knows_nothing(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"require_provenance.*oneseek adapters add"):
        Provenance.read(tmp_path / "ledger")
    assert not Ledger.open(tmp_path / "ledger").verify().known
