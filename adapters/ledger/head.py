"""The signed head: the number of entries, their bytes, and the hash of the last.

The chain alone cannot show that its end was cut off; the head can.
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
    """The end of the chain when the last entry was acknowledged."""

    count: int
    """Number of entries, which is the sequence number of the last."""
    size: int
    """Bytes of the ledger up to the end of the last entry, its line feed included."""
    hash: str
    """Hash of the last entry."""
    key: PublicKey

    @classmethod
    def read(cls, path: Path) -> Head | None:
        """Read the head in `path`; None if there is none. Raises `BrokenSealError` and `OSError`."""
        try:
            data = read_regular(path, _MAX_BYTES)
        except FileNotFoundError:
            return None
        fields = SealedObject.open(data).fields
        if fields.get("format") != FORMAT:
            raise BrokenSealError(
                f"the head has the format {format_value(fields.get('format'))}; this OneSeek reads only "
                f"{FORMAT}"
            )
        if fields.keys() != _KINDS.keys() or any(
            type(fields[name]) is not kind for name, kind in _KINDS.items()
        ):
            raise BrokenSealError("the head is signed, but does not have the fields of a ledger's head")
        return cls(fields["count"], fields["size"], fields["hash"], PublicKey.of(fields["key"]))

    @classmethod
    def write(cls, path: Path, key: SigningKey, *, count: int = 0, size: int = 0, last: str = START) -> Head:
        """Replace the head. `last` is the hash of the last entry."""
        fields = {"format": FORMAT, "count": count, "size": size, "hash": last}
        write_file(path, seal(fields, key), 0o644)
        return cls(count, size, last, key.public)


def tail_state(tail: bytes, after: Head) -> Tail:
    """Classify the bytes after the last entry that the head covers.

    `whole`: one entry, which was written before a crash prevented the update of the head. `torn`: a part of
    one entry. If a machine loses power, it may leave zeros there.
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
