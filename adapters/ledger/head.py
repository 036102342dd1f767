"""The ledger's signed head: the number of entries, their size in bytes, and the hash of the last entry.

The chain of hashes alone cannot show that entries at the end were cut off; the signed head can.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adapters.errors import format_value
from adapters.files.atomic import write_file
from adapters.files.regular import read_regular
from adapters.ledger.keys import PublicKey, SigningKey
from adapters.ledger.record import START, Entry
from adapters.ledger.seal import BrokenSealError, SealedObject, seal

FORMAT = "oneseek-ledger-head-v1"
_KINDS = {"count": int, "format": str, "hash": str, "key": str, "size": int}
_MAX_BYTES = 4096

Tail = Literal["none", "whole", "torn", "strange"]


@dataclass(frozen=True, slots=True)
class Head:
    """State of the ledger when its last entry was acknowledged, signed by the ledger's key."""

    count: int
    """Number of entries. This is also the sequence number of the last entry."""
    size: int
    """Bytes of the ledger up to the end of the last entry, its line feed included."""
    hash: str
    """Hash of the last entry."""
    key: PublicKey

    @classmethod
    def read(cls, path: Path) -> Head | None:
        """Read the head (the signed hash of the ledger's last entry) from the file `path`. Returns None if
        there is no such file. Raises `BrokenSealError` and `OSError`.
        """
        try:
            data = read_regular(path, _MAX_BYTES)
        except FileNotFoundError:
            return None
        fields = SealedObject.open(data).fields
        if fields.get("format") != FORMAT:
            raise BrokenSealError(
                "the ledger's head, which names its last entry, has the format "
                f"{format_value(fields.get('format'))}, but this OneSeek reads {FORMAT} only; "
                "use the release that wrote the ledger; to check the ledger, run oneseek ledger verify"
            )
        if fields.keys() != _KINDS.keys() or any(
            type(fields[name]) is not kind for name, kind in _KINDS.items()
        ):
            raise BrokenSealError(
                "the ledger's head, which names its last entry, is refused: it has missing or wrong fields; "
                "run oneseek ledger verify to see what else is wrong with the ledger"
            )
        return cls(fields["count"], fields["size"], fields["hash"], PublicKey.of(fields["key"]))

    @classmethod
    def write(cls, path: Path, key: SigningKey, *, count: int = 0, size: int = 0, last: str = START) -> Head:
        """Replace the ledger's head in the file `path`. `last` is the hash of the last entry."""
        fields = {"format": FORMAT, "count": count, "size": size, "hash": last}
        write_file(path, seal(fields, key), 0o644)
        return cls(count, size, last, key.public)


def tail_state(tail: bytes, after: Head) -> Tail:
    """Classify the bytes that follow the entry which the head `after` names as the last.

    `whole`: one entry, written before a crash prevented the update of the head. `torn`: an unfinished entry,
    or the zeros that a power loss may leave. `strange`: anything else, so the ledger was tampered with.
    `none`: no bytes.
    """
    if not tail:
        return "none"
    if b"\n" not in tail or b"\0" in tail:
        return "torn"
    try:
        entry = Entry.read(tail.removesuffix(b"\n"))
    except BrokenSealError:
        return "strange"
    fits = entry.sequence == after.count + 1 and entry.previous == after.hash and entry.key == after.key
    return "whole" if fits and tail.endswith(b"\n") else "strange"
