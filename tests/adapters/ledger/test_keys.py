"""The ledger's keys: made once, for their owner alone, changed without a break."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from adapters.errors import LedgerError
from adapters.ledger import Ledger
from adapters.ledger.keys import PublicKey, SigningKey
from tests.adapters.ledger.conftest import record

posix = pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")


@posix
def test_the_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    ledger.append(record(0))
    key = tmp_path / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    ledger.rotate()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.chmod(0o640)
    with pytest.raises(LedgerError, match=r"chmod 600 .*key\.pem.*oneseek ledger rotate"):
        ledger.append(record(1))
    key.chmod(0o600)
    assert ledger.append(record(1)).sequence == 3


def test_a_key_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    ledger.append(record(0))
    key = tmp_path / "key.pem"
    genuine = key.read_bytes()
    encrypted = load_pem_private_key(genuine, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    curve = ec.generate_private_key(ec.SECP256R1())
    other = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    for data, reason in (
        (encrypted, "passphrase"),
        (other, "passphrase"),
        (b"junk", "PEM"),
    ):
        key.write_bytes(data)
        with pytest.raises(LedgerError, match=reason) as caught:
            ledger.append(record(1))
        assert caught.value.path == key
    (tmp_path / "other.pem").write_bytes(
        curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for refused, named in (
        (tmp_path / "other.pem", "Ed25519"),
        (tmp_path / "missing.pem", r"missing\.pem"),
        (key, "PEM"),
    ):
        with pytest.raises(LedgerError, match=named) as caught:
            ledger.verify(refused)
        assert caught.value.path == refused


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here")
def test_openssl_reads_both_halves(tmp_path: Path) -> None:
    Ledger.open(tmp_path).append(record(0))
    made = subprocess.run(
        ["openssl", "pkey", "-in", str(tmp_path / "key.pem"), "-pubout"], capture_output=True, check=True
    )
    assert made.stdout == (tmp_path / "public.pem").read_bytes()


def test_a_change_of_keys_is_a_link_of_the_chain(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    ledger.append(record(0))
    old = PublicKey.read(tmp_path / "public.pem")
    new = ledger.rotate()
    ledger.append(record(1))
    assert PublicKey.read(tmp_path / "public.pem") == new
    assert SigningKey.read(tmp_path / "key.pem").public == new
    assert [entry.key for entry in ledger.entries()] == [old, old, new]
    assert ledger.verify().keys == (old.text, new.text)
    for key in (None, old, new):
        assert ledger.verify(key).state == "intact"


def test_a_key_is_32_bytes_in_one_spelling() -> None:
    text = SigningKey.generate().public.text
    assert PublicKey.of(text).text == text
    for wrong in (text[:-4], text.removeprefix("ed25519:"), text + "\n", "ed25519:AAAA", "ed25519:å"):
        with pytest.raises(ValueError, match=r"Ed25519|base64"):
            PublicKey.of(wrong)
