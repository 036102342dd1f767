"""Ed25519 keys: made, kept and read as PEM files. Loads `cryptography` where it is used, not before.

In the ledger a public key is `ed25519:` and the base64 of its 32 bytes.
"""

from __future__ import annotations

import base64
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.errors import LedgerError
from adapters.files.atomic import write_file
from adapters.files.regular import read_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PREFIX = "ed25519:"
_SIGNATURE_BYTES = 64
_MAX_PEM_BYTES = 1 << 14
_MADE_BY = "Keys are made by OneSeek at the first entry, or by: openssl genpkey -algorithm ed25519"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that verifies."""

    raw: bytes
    """32 bytes."""

    @property
    def text(self) -> str:
        """`ed25519:…`, as entries name it."""
        return PREFIX + base64.b64encode(self.raw).decode()

    @classmethod
    def of(cls, text: str) -> PublicKey:
        """The key that `text` names. Raises `ValueError` where it is no key in this form."""
        raw = _exact(text.removeprefix(PREFIX))
        if not text.startswith(PREFIX) or len(raw) != 32:
            raise ValueError("is no Ed25519 key: ed25519: and the base64 of 32 bytes")
        return cls(raw)

    @classmethod
    def read(cls, path: Path) -> PublicKey:
        """The key in a PEM file. Raises `LedgerError`."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        data = _pem(path)
        try:
            found = load_pem_public_key(data)
        except ValueError as problem:
            raise LedgerError(path, "holds no public key in PEM", _MADE_BY) from problem
        if not isinstance(found, Ed25519PublicKey):
            raise LedgerError(path, f"holds a {type(found).__name__}, not an Ed25519 key", _MADE_BY)
        return cls(found.public_bytes_raw())

    @property
    def pem(self) -> bytes:
        """SubjectPublicKeyInfo in PEM, as openssl reads it."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verify_signature(self, data: bytes, signature: str) -> bool:
        """Whether `signature`, in base64, is this key's over `data`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            raw = _exact(signature)
            Ed25519PublicKey.from_public_bytes(self.raw).verify(raw, data)
        except (InvalidSignature, ValueError):
            return False
        return len(raw) == _SIGNATURE_BYTES


class SigningKey:
    """A key that signs. Its secret half stays inside, and never appears in a message."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key, from the operating system's random numbers."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """The key in an unencrypted PEM file that its owner alone can read. Raises `LedgerError`."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        data = _pem(path)
        refuse_open_key(path)
        try:
            found = load_pem_private_key(data, password=None)
        except TypeError as problem:
            remedy = "Decrypt it with openssl pkey, onto a disk that is encrypted if need be."
            raise LedgerError(path, "is encrypted with a passphrase", remedy) from problem
        except ValueError as problem:
            raise LedgerError(path, "holds no private key in PEM", _MADE_BY) from problem
        if not isinstance(found, Ed25519PrivateKey):
            raise LedgerError(path, f"holds a {type(found).__name__}, not an Ed25519 key", _MADE_BY)
        return cls(found)

    def write(self, path: Path) -> None:
        """Write it as PKCS #8 in PEM, whole, for its owner alone."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        write_file(path, self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)

    def sign(self, data: bytes) -> str:
        """The signature over `data`, in base64."""
        return base64.b64encode(self._key.sign(data)).decode()


def refuse_open_key(path: Path) -> None:
    """Raises `LedgerError` where others than its owner can read or write a key's file; POSIX tells."""
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        remedy = f"chmod 600 {path}; if they may have read it, change keys: oneseek ledger rotate"
        raise LedgerError(path, "can be read or written by others than its owner", remedy)


def _pem(path: Path) -> bytes:
    try:
        return read_regular(path, _MAX_PEM_BYTES)
    except OSError as problem:
        reason = f"cannot be read ({problem.strerror})"
        raise LedgerError(path, reason, "Check the path and who may read it.") from problem


def _exact(text: str) -> bytes:
    """The bytes that `text` is the base64 of; `ValueError` where other text would mean the same bytes."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as problem:
        raise ValueError("is not base64") from problem
    if base64.b64encode(raw).decode() != text:
        raise ValueError("is not base64 in its one form")
    return raw
