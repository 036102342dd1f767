"""The signed head: how many entries there are, how many bytes, and the hash of the last.

The chain alone cannot tell that its end was cut off; the head can.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.errors import format_value
from adapters.ledger.files import write_whole
from adapters.ledger.keys import PublicKey, SigningKey
from adapters.ledger.record import START
from adapters.ledger.seal import BrokenSealError, SealedObject, seal

FORMAT = "oneseek-ledger-head-v1"
_KINDS = {"count": int, "format": str, "hash": str, "key": str, "size": int}
_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain as it was last acknowledged."""

    count: int
    """Entries; the sequence number of the last."""
    size: int
    """Bytes of the ledger up to the end of the last entry, its line feed included."""
    hash: str
    """Of the last entry."""
    key: PublicKey

    @classmethod
    def read(cls, path: Path) -> Head | None:
        """The head in `path`, None where there is none. Raises `BrokenSealError` and `OSError`."""
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES)
        except FileNotFoundError:
            return None
        fields = SealedObject.open(data).fields
        if fields.get("format") != FORMAT:
            raise BrokenSealError(
                f"has format {format_value(fields.get('format'))}; this OneSeek reads {FORMAT}"
            )
        if fields.keys() != _KINDS.keys() or any(
            type(fields[name]) is not kind for name, kind in _KINDS.items()
        ):
            raise BrokenSealError("is signed, but has not the fields of a head")
        return cls(fields["count"], fields["size"], fields["hash"], PublicKey.of(fields["key"]))

    @classmethod
    def write(cls, path: Path, key: SigningKey, *, count: int = 0, size: int = 0, last: str = START) -> Head:
        """Put a new head in the place of the one there; `last` is the hash of the last entry."""
        fields = {"format": FORMAT, "count": count, "size": size, "hash": last}
        write_whole(path, seal(fields, key))
        return cls(count, size, last, key.public)
