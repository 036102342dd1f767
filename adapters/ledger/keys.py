"""Make, store and read Ed25519 keys as PEM files. The package `cryptography` is loaded at first use.

In the ledger, a public key is written as `ed25519:` and the base64 of its 32 bytes.
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
    "OneSeek makes the ledger's key with its first entry. "
    "To make a key yourself: openssl genpkey -algorithm ed25519"
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key, which verifies signatures."""

    raw: bytes
    """The 32 bytes of the Ed25519 key."""

    @property
    def text(self) -> str:
        """The public key as ledger entries write it: `ed25519:` and base64."""
        return PREFIX + base64.b64encode(self.raw).decode()

    @classmethod
    def of(cls, text: str) -> PublicKey:
        """Parse a public key written as `ed25519:` and base64. Raises `ValueError` if `text` has another
        form.
        """
        raw = _exact(text.removeprefix(PREFIX))
        if not text.startswith(PREFIX) or len(raw) != 32:
            raise ValueError(
                "the text is not an Ed25519 key: write ed25519: followed by the base64 of the key's 32 bytes"
            )
        return cls(raw)

    @classmethod
    def read(cls, path: Path) -> PublicKey:
        """Read the public key in a PEM file. Raises `LedgerError` if there is none."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        data = _pem(path)
        try:
            found = load_pem_public_key(data)
        except ValueError as problem:
            raise LedgerError(path, "the file does not hold a public key in PEM", _MADE_BY) from problem
        if not isinstance(found, Ed25519PublicKey):
            raise LedgerError(
                path,
                f"the file holds a {type(found).__name__}, but the ledger needs an Ed25519 key",
                _MADE_BY,
            )
        return cls(found.public_bytes_raw())

    @property
    def pem(self) -> bytes:
        """The public key as a PEM file (SubjectPublicKeyInfo), which openssl reads."""
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
    """A private key, which signs. Error messages never show its secret bytes."""

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
        """Read the private key in a PEM file. Raises `LedgerError` if the file is encrypted, or if other
        users can read it.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        data = _pem(path)
        refuse_open_key(path)
        try:
            found = load_pem_private_key(data, password=None)
        except TypeError as problem:
            remedy = "Decrypt the key with openssl pkey; keep it on an encrypted disk if you need to."
            raise LedgerError(
                path, "the private key is encrypted with a passphrase, which OneSeek does not ask for", remedy
            ) from problem
        except ValueError as problem:
            raise LedgerError(path, "the file does not hold a private key in PEM", _MADE_BY) from problem
        if not isinstance(found, Ed25519PrivateKey):
            raise LedgerError(
                path,
                f"the file holds a {type(found).__name__}, but the ledger needs an Ed25519 key",
                _MADE_BY,
            )
        return cls(found)

    def write(self, path: Path) -> None:
        """Write the private key atomically to a PEM file (PKCS #8) that only its owner can read."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        write_file(path, self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)

    def sign(self, data: bytes) -> str:
        """Sign `data`; returns the signature in base64."""
        return base64.b64encode(self._key.sign(data)).decode()


def refuse_open_key(path: Path) -> None:
    """Raise `LedgerError` if other users than the owner can read or write the key file. Checked on POSIX
    only.
    """
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        remedy = f"chmod 600 {path}; if others may have read it, change keys: oneseek ledger rotate"
        raise LedgerError(path, "users other than the owner can read or write this key file", remedy)


def _pem(path: Path) -> bytes:
    try:
        return read_regular(path, _MAX_PEM_BYTES)
    except OSError as problem:
        reason = f"cannot be read ({problem.strerror})"
        raise LedgerError(path, reason, "Check the key file's path and permissions.") from problem


def _exact(text: str) -> bytes:
    """Decode a key or signature from base64. Raises `ValueError` if `text` is not canonical base64."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as problem:
        raise ValueError("the text of the key or signature is not base64; copy it again") from problem
    if base64.b64encode(raw).decode() != text:
        raise ValueError("the text of the key or signature is not canonical base64; copy it again")
    return raw
