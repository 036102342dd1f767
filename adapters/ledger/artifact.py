"""Sign whole adapter folders in OpenSSF's model-signing format, if that library is installed.

You can then check a folder without OneSeek: `model_signing verify key FOLDER --public_key …`. The library
does not support Ed25519, so these signatures have a key of their own on the curve P-256. The ledger's key
vouches for it in an entry.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from adapters.errors import AdapterError, LedgerError
from adapters.files.atomic import write_file
from adapters.ledger.keys import refuse_open_key
from adapters.ledger.ledger import Ledger
from adapters.ledger.record import Record
from adapters.ledger.seal import sha256_of

SIGNATURE_FILE = "model.sig"
KEY_FILE = "artifact-key.pem"
PUBLIC_FILE = "artifact-public.pem"
_INSTALL = "Install the package: pip install 'oneseek[sign]'"


def is_installed() -> bool:
    """True if the model-signing library is installed."""
    try:
        return all(importlib.util.find_spec(name) is not None for name in ("model_signing", "OpenSSL"))
    except ValueError:  # a module that is marked as absent
        return False


def sign_folder(folder: Path, ledger: Ledger, subject: str, adapter_digest: str) -> Path:
    """Write `model.sig` into an adapter's folder, signing every other file in it. Returns the signature's
    path.

    The ledger gets an entry `sign` with the digests of adapter and signature, and an entry that names the key
    if it is new. Raises `LedgerError` if the library is missing, the key cannot be used, or a file in the
    folder is a link.
    """
    _needed()
    from model_signing.hashing import Config as Hashing
    from model_signing.signing import Config

    key = _key(ledger)
    signature = folder / SIGNATURE_FILE
    fresh = folder / f".{SIGNATURE_FILE}.tmp"
    hashing = Hashing().set_ignored_paths(paths=[SIGNATURE_FILE, fresh.name], ignore_git_paths=False)
    try:
        Config().set_hashing_config(hashing).use_elliptic_key_signer(private_key=key).sign(folder, fresh)
        data = fresh.read_bytes()
        outputs = {"signature": sha256_of(data)}
        ledger.append(
            Record(action="sign", subject=subject, inputs={"adapter": adapter_digest}, outputs=outputs)
        )
        write_file(signature, data, 0o644)
    except (ValueError, OSError) as problem:
        raise LedgerError(
            folder, f"the folder cannot be signed ({problem})", "Check the folder's files, and sign again."
        ) from problem
    finally:
        fresh.unlink(missing_ok=True)
    return signature


def verify_folder(folder: Path, public_key: Path) -> None:
    """Check `model.sig` in `folder` against the P-256 key in the PEM file `public_key`.

    Raises `AdapterError` if a file was changed, added or removed, or another key signed. Raises `LedgerError`
    if the library is missing.
    """
    _needed()
    from cryptography.exceptions import InvalidSignature
    from model_signing.hashing import Config as Hashing
    from model_signing.verifying import Config

    if not (folder / SIGNATURE_FILE).is_file():
        raise AdapterError(
            folder / SIGNATURE_FILE,
            "the signature file does not exist",
            f"Sign the folder where it was made: oneseek ledger sign {folder}",
        )
    hashing = Hashing().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)
    remedy = "Copy the folder from its source again, or sign it again if its files are right."
    try:
        config = Config().set_hashing_config(hashing).use_elliptic_key_verifier(public_key=public_key)
        config.verify(folder, folder / SIGNATURE_FILE)
    except InvalidSignature as problem:
        raise AdapterError(
            folder / SIGNATURE_FILE, "the folder is not signed by the given key", remedy
        ) from problem
    except (ValueError, KeyError, OSError) as problem:
        raise AdapterError(
            folder / SIGNATURE_FILE,
            f"the signature does not match the files in its folder ({problem})",
            remedy,
        ) from problem


def _needed() -> None:
    if not is_installed():
        raise LedgerError(Path("model_signing"), "the package is not installed", _INSTALL)


def _key(ledger: Ledger) -> Path:
    """Return the P-256 key beside the ledger. It is made at first use, and named in an entry before it signs
    anything.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    path = ledger.folder / KEY_FILE
    if path.exists():
        refuse_open_key(path)
        return path
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    details = {"pem": public.decode(), "curve": "P-256"}
    ledger.append(
        Record(action="key", subject=PUBLIC_FILE, outputs={"key": sha256_of(public)}, details=details)
    )
    write_file(ledger.folder / PUBLIC_FILE, public, 0o644)
    write_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    return path
