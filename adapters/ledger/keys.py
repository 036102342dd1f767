"""Ed25519 keys: made, kept and read as PEM files. `cryptography` is loaded at first use.

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
_MADE_BY = (
    "OneSeek makes the key at the first entry. To make a key yourself: openssl genpkey -algorithm ed25519"
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key, which verifies signatures."""

    raw: bytes
    """The 32 bytes of the Ed25519 key."""

    @property
    def text(self) -> str:
        """The key as entries name it: `ed25519:…`."""
        return PREFIX + base64.b64encode(self.raw).decode()

    @classmethod
    def of(cls, text: str) -> PublicKey:
        """Parse a key in this form. Raises `ValueError` if `text` is not one."""
        raw = _exact(text.removeprefix(PREFIX))
        if not text.startswith(PREFIX) or len(raw) != 32:
            raise ValueError(
                "the key is not an Ed25519 key: write ed25519: followed by the base64 of its 32 bytes"
            )
        return cls(raw)

    @classmethod
    def read(cls, path: Path) -> PublicKey:
        """Read the key in a PEM file. Raises `LedgerError`."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        data = _pem(path)
        try:
            found = load_pem_public_key(data)
        except ValueError as problem:
            raise LedgerError(path, "the file does not hold a public key in PEM", _MADE_BY) from problem
        if not isinstance(found, Ed25519PublicKey):
            raise LedgerError(path, f"the file holds a {type(found).__name__}, not an Ed25519 key", _MADE_BY)
        return cls(found.public_bytes_raw())

    @property
    def pem(self) -> bytes:
        """The key as SubjectPublicKeyInfo in PEM, which openssl reads."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verify_signature(self, data: bytes, signature: str) -> bool:
        """True if `signature`, in base64, is this key's signature of `data`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            raw = _exact(signature)
            Ed25519PublicKey.from_public_bytes(self.raw).verify(raw, data)
        except (InvalidSignature, ValueError):
            return False
        return len(raw) == _SIGNATURE_BYTES


class SigningKey:
    """A private key, which signs. Its secret half never appears in a message."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key from the operating system's random numbers."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """Read the key in an unencrypted PEM file that only its owner can read. Raises `LedgerError`."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        data = _pem(path)
        refuse_open_key(path)
        try:
            found = load_pem_private_key(data, password=None)
        except TypeError as problem:
            raise LedgerError(
                path,
                "the private key is encrypted with a passphrase",
                "Decrypt the key with openssl pkey; if it must be protected, keep it on an encrypted disk.",
            ) from problem
        except ValueError as problem:
            raise LedgerError(path, "the file does not hold a private key in PEM", _MADE_BY) from problem
        if not isinstance(found, Ed25519PrivateKey):
            raise LedgerError(path, f"the file holds a {type(found).__name__}, not an Ed25519 key", _MADE_BY)
        return cls(found)

    def write(self, path: Path) -> None:
        """Write the key as PKCS #8 in PEM, atomically, readable by its owner only."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        write_file(path, self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)

    def sign(self, data: bytes) -> str:
        """Sign `data`; returns the signature in base64."""
        return base64.b64encode(self._key.sign(data)).decode()


def refuse_open_key(path: Path) -> None:
    """Raise `LedgerError` if others than its owner can read or write a key's file. Checked on POSIX only."""
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise LedgerError(
            path,
            "the private key can be read or written by users other than its owner",
            f"Run chmod 600 {path}. If others may have read the key, change keys: oneseek ledger rotate.",
        )


def _pem(path: Path) -> bytes:
    try:
        return read_regular(path, _MAX_PEM_BYTES)
    except OSError as problem:
        raise LedgerError(
            path, f"the key file cannot be read ({problem.strerror})", "Check the path and its permissions."
        ) from problem


def _exact(text: str) -> bytes:
    """Decode base64. Raises `ValueError` if `text` is not the one canonical form for its bytes."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as problem:
        raise ValueError("the key or signature is not base64") from problem
    if base64.b64encode(raw).decode() != text:
        raise ValueError("the key or signature is not in canonical base64")
    return raw
