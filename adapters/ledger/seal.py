"""Sealed objects: JSON in RFC 8785's canonical form that names a key and carries that key's signature.

The signature, a member of the object, is over the canonical form of the object without it. One set of bytes
stands for one object, so no byte can change without a fault.
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
    """Bytes are not a sealed object; the message says why, and goes on after the name of where they were."""


@dataclass(frozen=True, slots=True)
class SealedObject:
    """An object whose signature fits the key it names. Whether that key is the right one is for others."""

    fields: Mapping[str, Any]
    """All members but the signature."""
    data: bytes

    @property
    def key(self) -> PublicKey:
        """The key that signed it."""
        return PublicKey.of(self.fields["key"])

    @classmethod
    def open(cls, data: bytes) -> SealedObject:
        """The object in `data`. Raises `BrokenSealError`."""
        found = _parsed(data)
        signature, key = found.pop("signature", None), found.get("key")
        if not isinstance(signature, str) or not isinstance(key, str):
            raise BrokenSealError("has no signature, or names no key")
        try:
            fits = PublicKey.of(key).verify_signature(canonical_bytes(found), signature)
        except ValueError as problem:
            raise BrokenSealError(f"names a key that {problem}") from None
        if not fits:
            raise BrokenSealError("was changed: its signature is not over these bytes")
        return cls(found, data)


def seal(fields: Mapping[str, Any], key: SigningKey) -> bytes:
    """`fields` with key and signature, in canonical form. Raises `ValueError` for what JSON cannot hold."""
    named = {**fields, "key": key.public.text}
    return canonical_bytes({**named, "signature": key.sign(canonical_bytes(named))})


def canonical_bytes(value: Any) -> bytes:
    """`value` in the form of RFC 8785. Raises `ValueError` for NaN, large integers and what is not JSON."""
    import rfc8785

    try:
        return rfc8785.dumps(value)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def sha256_of(data: bytes) -> str:
    """`sha256:` and the 64 hex digits of the SHA-256 of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found: object = json.loads(data.decode("utf-8"), parse_int=_number)
    except (ValueError, RecursionError):
        raise BrokenSealError("was changed: it is not JSON") from None
    if not isinstance(found, dict):
        raise BrokenSealError("was changed: it is not a JSON object")
    try:
        exact = canonical_bytes(found) == data
    except ValueError:
        exact = False
    if not exact:
        raise BrokenSealError("was changed: it is not in the canonical form of RFC 8785")
    return found


def _number(text: str) -> int | float:
    """JSON knows no integers past 2**53, but the canonical form writes large floats like them."""
    number = int(text)
    return number if abs(number) < _EXACT else float(text)
