"""Sealed objects: JSON in RFC 8785's canonical form that names a key and carries that key's signature.

The signature is a member of the object. It covers the canonical form of the object without it. Each object
has exactly one form in bytes, so every changed byte is a fault.
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
    """The bytes are not a sealed object. The message says why, and continues a sentence that begins with
    their file.
    """


@dataclass(frozen=True, slots=True)
class SealedObject:
    """An object whose signature matches the key that it names. The caller decides if that key is the right
    one.
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
        """Read the object in `data`. Raises `BrokenSealError`."""
        found = _parsed(data)
        signature, key = found.pop("signature", None), found.get("key")
        if not isinstance(signature, str) or not isinstance(key, str):
            raise BrokenSealError(
                "the ledger's JSON is not signed: it must have a signature and the key that made it"
            )
        try:
            fits = PublicKey.of(key).verify_signature(canonical_bytes(found), signature)
        except ValueError as problem:
            raise BrokenSealError(
                f"the ledger's JSON names an invalid key as its signer: {problem}"
            ) from None
        if not fits:
            raise BrokenSealError(
                "the ledger's text was changed after it was signed: the signature does not match"
            )
        return cls(found, data)


def seal(fields: Mapping[str, Any], key: SigningKey) -> bytes:
    """Return `fields` with key and signature in canonical form. Raises `ValueError` for what JSON cannot
    hold.
    """
    named = {**fields, "key": key.public.text}
    return canonical_bytes({**named, "signature": key.sign(canonical_bytes(named))})


def canonical_bytes(value: Any) -> bytes:
    """Return `value` in RFC 8785's form. Raises `ValueError` for NaN, large integers and what JSON cannot
    hold.
    """
    import rfc8785

    try:
        return rfc8785.dumps(value)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply for a ledger entry") from None


def sha256_of(data: bytes) -> str:
    """Return `sha256:` and the 64 hex digits of the SHA-256 of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found: object = json.loads(data.decode("utf-8"), parse_int=_number)
    except (ValueError, RecursionError):
        raise BrokenSealError("the ledger's text was changed: it is not JSON") from None
    if not isinstance(found, dict):
        raise BrokenSealError("the ledger's text was changed: it is not a JSON object")
    try:
        exact = canonical_bytes(found) == data
    except ValueError:
        exact = False
    if not exact:
        raise BrokenSealError("the ledger's JSON was changed: it is not in the canonical form of RFC 8785")
    return found


def _number(text: str) -> int | float:
    """Convert a number: JSON has no exact integers above 2**53, but the canonical form writes large floats
    like integers.
    """
    number = int(text)
    return number if abs(number) < _EXACT else float(text)
