"""Sealed objects: JSON in RFC 8785's canonical form that names a key and carries that key's signature.

The signature is a field of the object, and signs the canonical form of all other fields. A sealed object can
be written as bytes in only one way, so any changed byte shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.ledger.keys import PublicKey, SigningKey

_EXACT = 2**53


class BrokenSealError(ValueError):
    """The bytes are not a sealed object, which is signed JSON, or the signature does not match. The message
    says why.
    """


@dataclass(frozen=True, slots=True)
class SealedObject:
    """A JSON object whose signature matches the key that it names. The caller must check that this key is the
    expected one.
    """

    fields: Mapping[str, Any]
    """All fields of the signed object, except the signature."""
    data: bytes

    @property
    def key(self) -> PublicKey:
        """Public key that signed the object."""
        return PublicKey.of(self.fields["key"])

    @classmethod
    def open(cls, data: bytes) -> SealedObject:
        """Read the signed JSON object in `data` and check its signature. Raises `BrokenSealError`."""
        found = _parsed(data)
        signature, key = found.pop("signature", None), found.get("key")
        if not isinstance(signature, str) or not isinstance(key, str):
            raise BrokenSealError(
                "the ledger's JSON is refused: it must have a signature and the key that made the signature; "
                "restore the ledger from a copy"
            )
        try:
            fits = PublicKey.of(key).verify_signature(canonical_bytes(found), signature)
        except ValueError as problem:
            raise BrokenSealError(
                f"the ledger's JSON is refused, because it names an invalid key as its signer ({problem}); "
                "restore the ledger from a copy"
            ) from None
        if not fits:
            raise BrokenSealError(
                "the ledger's JSON was changed after it was signed, so it is refused: the signature is "
                "wrong; restore the ledger from a copy"
            )
        return cls(found, data)


def seal(fields: Mapping[str, Any], key: SigningKey) -> bytes:
    """Sign `fields` with `key`, and return them with key and signature in canonical form. Raises `ValueError`
    for values that JSON cannot hold.
    """
    named = {**fields, "key": key.public.text}
    return canonical_bytes({**named, "signature": key.sign(canonical_bytes(named))})


def canonical_bytes(value: Any) -> bytes:
    """Return `value` in RFC 8785's canonical form. Raises `ValueError` for NaN, integers above 2**53, and
    other values that the form cannot hold.
    """
    import rfc8785

    try:
        return rfc8785.dumps(value)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply for a ledger entry; use fewer levels") from None


def sha256_of(data: bytes) -> str:
    """Return `sha256:` and the 64 hex digits of the SHA-256 of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found: object = json.loads(data.decode("utf-8"), parse_int=_number)
    except (ValueError, RecursionError):
        raise BrokenSealError(
            "the ledger's text was changed, so it is refused: it is not JSON; restore the ledger from a copy"
        ) from None
    if not isinstance(found, dict):
        raise BrokenSealError(
            "the ledger's text was changed, so it is refused: it is not a JSON object; "
            "restore the ledger from a copy"
        )
    try:
        exact = canonical_bytes(found) == data
    except ValueError:
        exact = False
    if not exact:
        raise BrokenSealError(
            "the ledger's JSON was changed, so it is refused: it is not in the canonical form of RFC 8785; "
            "restore the ledger from a copy"
        )
    return found


def _number(text: str) -> int | float:
    """Parse an integer of JSON. Return a float from 2**53 on, since the canonical form writes such floats
    without a decimal point.
    """
    number = int(text)
    return number if abs(number) < _EXACT else float(text)
