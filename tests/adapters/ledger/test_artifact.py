"""Folders signed in OpenSSF's format, where its library is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.errors import AdapterError, LedgerError
from adapters.ledger import Ledger, artifact
from adapters.lora.digest import adapter_digest
from tests.adapters.ledger.conftest import sha

installed = pytest.mark.skipif(not artifact.is_installed(), reason="needs oneseek[sign]")


@pytest.fixture(scope="session")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger.open(tmp_path_factory.mktemp("signing") / "ledger")


@pytest.fixture
def signed(make_adapter: Callable[..., Path], ledger: Ledger) -> Path:
    folder = make_adapter("sv", manifest={"alias": "sv", "version": "v1"})
    artifact.sign_folder(folder, ledger, "sv@v1", adapter_digest(folder))
    return folder


@installed
def test_a_signed_folder_verifies_and_the_ledger_says_so(signed: Path, ledger: Ledger) -> None:
    public = ledger.folder / "artifact-public.pem"
    artifact.verify_folder(signed, public)
    artifact.verify_folder(Path(shutil.copytree(signed, signed.parent / "elsewhere")), public)
    entries = list(ledger.entries())
    assert [entry.record.action for entry in entries][:2] == ["key", "sign"]
    assert entries[0].record.details["pem"] == public.read_text(encoding="ascii")
    assert entries[-1].record.inputs == {"adapter": adapter_digest(signed)}
    assert ledger.verify().state == "intact"
    if sys.platform != "win32":
        assert (ledger.folder / "artifact-key.pem").stat().st_mode & 0o777 == 0o600


@installed
def test_the_library_s_own_command_agrees(signed: Path, ledger: Ledger) -> None:
    public, signature = ledger.folder / "artifact-public.pem", signed / "model.sig"
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(signed)]
    files = ["--signature", str(signature), "--public_key", str(public), "--ignore-paths", str(signature)]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


@installed
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "oneseek.json"])
def test_any_changed_file_is_named(name: str, signed: Path, ledger: Ledger) -> None:
    with (signed / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(AdapterError, match=name):
        artifact.verify_folder(signed, ledger.folder / "artifact-public.pem")


@installed
@pytest.mark.parametrize("name", ["another.py", ".gitattributes", ".git/config"])
def test_an_added_file_is_named(name: str, signed: Path, ledger: Ledger) -> None:
    (signed / name).parent.mkdir(exist_ok=True)
    (signed / name).write_text("", encoding="ascii")
    with pytest.raises(AdapterError, match=r"another\.py|\.git"):
        artifact.verify_folder(signed, ledger.folder / "artifact-public.pem")


@installed
def test_another_key_s_signature_is_refused(signed: Path, tmp_path: Path) -> None:
    other = Ledger.open(tmp_path / "other")
    folder = Path(shutil.copytree(signed, tmp_path / "copy"))
    artifact.sign_folder(folder, other, "sv@v1", sha("a"))
    with pytest.raises(AdapterError, match=r"model\.sig"):
        artifact.verify_folder(signed, other.folder / "artifact-public.pem")
    (signed / "model.sig").write_text("{}", encoding="ascii")
    with pytest.raises(AdapterError, match=r"model\.sig"):
        artifact.verify_folder(signed, other.folder / "artifact-public.pem")


def test_without_the_library_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenSSL", None)
    assert not artifact.is_installed()
    with pytest.raises(LedgerError, match=r"pip install 'oneseek\[sign\]'"):
        artifact.sign_folder(tmp_path, Ledger.open(tmp_path / "ledger"), "sv@v1", sha("a"))
    assert not (tmp_path / "ledger").exists()
