"""The contents of the ledger: a `Record` describes an action; an `Entry` is a record with its position in the
chain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from adapters.errors import format_value
from adapters.ledger.keys import PublicKey, SigningKey
from adapters.ledger.seal import BrokenSealError, SealedObject, canonical_bytes, seal, sha256_of

FORMAT = "oneseek-ledger-v1"
ROTATE = "rotate"
"""The action of an entry that changes the ledger's key. Only `Ledger.rotate` writes it."""
REVOKE = "revoke"
"""The action of an entry that revokes artifacts: the digests among its inputs are no longer known."""
MAX_LINE_BYTES = 1 << 20
MAX_RECORD_BYTES = MAX_LINE_BYTES - (16 << 10)
"""Maximum size of a record in bytes. The rest of the entry's line is for hash, number and signature."""
START = f"sha256:{'0' * 64}"
"""The value of `previous` in the ledger's first entry, which has no entry before it."""

_ROTATION = "oneseek-ledger-rotate-v1"
_FIELDS = {
    "action": str, "code": dict, "details": dict, "format": str, "inputs": dict, "key": str, "metrics": dict,
    "outputs": dict, "previous": str, "sequence": int, "subject": str, "time": str,
}  # fmt: skip
_ACTION = re.compile(r"[a-z][a-z0-9-]{0,31}")
_ROLE = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One action, with its inputs and results, for the ledger. Raises `ValueError` that names an invalid
    field.
    """

    action: str
    """The action, such as `train`, `import`, `add`, `promote`, `rollback`, `retire`, `merge`, `distill`,
    `eval`.
    """
    subject: str
    """`alias@version`, or the name of another thing that the entry is about, such as a base."""
    inputs: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict[str, "str | tuple[str, ...]"])
    """Maps each role (base, data, parents, teacher, config, source) to one or more digests, `sha256:…`."""
    outputs: Mapping[str, str] = field(default_factory=dict[str, str])
    """Maps the role of each result (adapter, model) to its digest."""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further details as plain JSON, such as seed, command or reason."""

    def __post_init__(self) -> None:
        if not _ACTION.fullmatch(self.action):
            raise ValueError(
                f"the ledger record's action {format_value(self.action)} is invalid: "
                "use a short word such as train"
            )
        if not self.subject.isprintable() or not 0 < len(self.subject) <= 300:
            raise ValueError(
                f"the ledger record's subject {format_value(self.subject)} is invalid: "
                "use 1 to 300 printable characters"
            )
        for name, given in (("inputs", self.inputs), ("outputs", self.outputs)):
            for role, found in given.items():
                if not _ROLE.fullmatch(role):
                    raise ValueError(
                        f"the ledger record's {name} have the invalid role {format_value(role)}: "
                        "use a short word such as base"
                    )
                for one in (found,) if isinstance(found, str) else found:
                    if not _DIGEST.fullmatch(one):
                        raise ValueError(
                            f"the ledger record's {name}.{role} {format_value(one)} is not a digest: "
                            "use sha256: and 64 hex digits"
                        )
        for name, value in self.metrics.items():
            if isinstance(value, bool) or not math.isfinite(value):
                raise ValueError(
                    f"the ledger record's metrics.{name} is {format_value(value)}: use a finite number"
                )
        try:
            canonical_bytes(dict(self.details))
        except ValueError as problem:
            raise ValueError(
                f"the ledger record's details cannot be written ({problem}): "
                "use plain JSON, and write large numbers as text"
            ) from None

    @property
    def sources(self) -> tuple[tuple[str, str], ...]:
        """Return every input as a pair of role and digest."""
        return tuple(
            (role, one)
            for role, found in self.inputs.items()
            for one in ((found,) if isinstance(found, str) else found)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON, as an entry holds it."""
        return {
            "action": self.action,
            "subject": self.subject,
            "inputs": {
                role: found if isinstance(found, str) else list(found) for role, found in self.inputs.items()
            },
            "outputs": dict(self.outputs),
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "details": dict(self.details),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record in the ledger's chain: with a number, a time, the previous entry's hash, and a signature."""

    sequence: int
    """Number of the entry in the ledger, from 1."""
    time: str
    """Time of writing in RFC 3339, UTC with milliseconds, by the clock of the machine that wrote the entry.
    """
    record: Record
    code: Mapping[str, str]
    """The software that wrote the entry: `oneseek` is its version; in a checkout there is also `commit`."""
    previous: str
    """Hash of the previous entry. `START` in the first entry."""
    key: PublicKey
    """Public key that signed the entry."""
    line: bytes
    """The entry as one line of canonical JSON, without the line feed."""

    @property
    def hash(self) -> str:
        """Hash of the entry's line, `sha256:…`. The next entry holds it in `previous`."""
        return sha256_of(self.line)

    @property
    def next_key(self) -> PublicKey:
        """The key that must sign the ledger's next entry: a new key if this entry changes keys."""
        if self.record.action != ROTATE:
            return self.key
        return PublicKey.of(self.record.details["new_key"])

    @classmethod
    def write(
        cls, record: Record, sequence: int, previous: str, code: Mapping[str, str], key: SigningKey
    ) -> Entry:
        """Make and sign a new entry. Raises `ValueError` if its line is too long."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = seal(
            {
                "format": FORMAT,
                "sequence": sequence,
                "time": now,
                "code": dict(code),
                "previous": previous,
                **record.to_json(),
            },
            key,
        )
        if len(line) >= MAX_LINE_BYTES:
            raise ValueError(
                f"the ledger entry has {len(line)} bytes; the limit is {MAX_LINE_BYTES - 1}: "
                "put long content into a file and record the file's digest"
            )
        return cls.read(line)

    @classmethod
    def read(cls, line: bytes) -> Entry:
        """Read the entry in `line` and check its signature. Raises `BrokenSealError` if the line is not a
        signed entry.
        """
        if len(line) >= MAX_LINE_BYTES:
            raise BrokenSealError(
                f"the line is too long, so it is refused: a ledger entry has less than {MAX_LINE_BYTES} "
                "bytes; restore the ledger from a copy"
            )
        fields = SealedObject.open(line).fields
        if fields.get("format") != FORMAT:
            raise BrokenSealError(
                f"the ledger entry has the format {format_value(fields.get('format'))}, "
                f"but this OneSeek reads {FORMAT} only; use the release that wrote the entry"
            )
        fit = fields.keys() == _FIELDS.keys() and all(
            type(fields[name]) is kind for name, kind in _FIELDS.items()
        )
        if not fit or not _TIME.fullmatch(fields["time"]) or fields["sequence"] < 1:
            raise BrokenSealError(
                "the ledger entry is signed, but its fields are not those of an entry, so it is refused; "
                "restore the ledger from a copy"
            )
        try:
            return cls._of(fields, line)
        except (ValueError, TypeError, KeyError, AttributeError) as problem:
            raise BrokenSealError(
                f"the ledger entry is signed, but is not valid, so it is refused ({problem}); "
                "restore the ledger from a copy"
            ) from None

    @classmethod
    def _of(cls, fields: Mapping[str, Any], line: bytes) -> Entry:
        inputs = {role: one if isinstance(one, str) else tuple(one) for role, one in fields["inputs"].items()}
        record = Record(
            action=fields["action"],
            subject=fields["subject"],
            inputs=inputs,
            outputs=fields["outputs"],
            metrics={name: float(value) for name, value in fields["metrics"].items()},
            details=fields["details"],
        )
        entry = cls(
            sequence=fields["sequence"],
            time=fields["time"],
            record=record,
            code=fields["code"],
            previous=fields["previous"],
            key=PublicKey.of(fields["key"]),
            line=line,
        )
        if record.action == ROTATE:
            statement = rotation_statement(entry.previous, entry.key, entry.next_key)
            if not entry.next_key.verify_signature(statement, record.details["proof"]):
                raise ValueError(
                    "the ledger entry changes the signing key without a signature by the new key, "
                    "so it is refused"
                )
        return entry


def rotation_statement(previous: str, old: PublicKey, new: PublicKey) -> bytes:
    """Return the bytes that a new key signs, to vouch for all entries up to that with the hash `previous`."""
    return canonical_bytes(
        {"format": _ROTATION, "previous": previous, "old_key": old.text, "new_key": new.text}
    )


def rotation(previous: str, old: PublicKey, new: SigningKey) -> Record:
    """Return the record of a change from the key `old` to the key `new`."""
    proof = new.sign(rotation_statement(previous, old, new.public))
    return Record(action=ROTATE, subject="ledger", details={"new_key": new.public.text, "proof": proof})
