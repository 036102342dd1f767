"""docs/upgrading.md, walked through: from the folder of an existing installation to its first answer."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adapters.ledger import Ledger
from adapters.pth.provenance import provenance_digest
from server.__main__ import main
from server.config.settings import resolve_settings
from server.live.catalogue import open_catalogue
from tests.server.server_process import ServerProcess, heed_interrupts
from tests.server.surroundings import start_afresh

Out = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line.removeprefix("$ ") for block in BLOCKS for line in block.splitlines()]
SHELL = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(
    shutil.which("curl") is None or sys.platform == "win32", reason="the page's commands use curl"
)


def trained(folder: Path, file: Path, **said: Any) -> None:
    """The adapter in `folder` as the old training saved it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(load_file(folder / "adapter_model.safetensors"), file)
    notes = {
        "base_model": "Mistral-7B",
        "metrics": {"loss": 4.48, "accuracy": 0.85},
        **said,
    }
    file.with_suffix(".json").write_text(json.dumps(notes), encoding="utf-8")


@pytest.fixture
def installation(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The existing installation, in the shape of its own guide, with a small random Mistral."""
    root = tmp_path / "the old one"
    shutil.copytree(tiny_base, root / "models" / "mistral-7b-instruct")
    en, sv = tiny_adapters["en"], tiny_adapters["sv"]
    trained(en, root / "weights" / "oneseek-7b-zero-v1.1.pth", lora_config={"r": 4, "lora_alpha": 8})
    trained(sv, root / "weights" / "oneseek-7b-zero-v1.1-SV.pth", lora_config={"r": 8, "lora_alpha": 16})
    trained(sv, root / "lora_adapters" / "oneseek-7b-zero-v1.2" / "adapter.pth", lora_alpha=16, language="en")
    for file, text in {
        "scripts/train_identity.py": "",
        "scripts/merge_lora.py": "",
        "ml_service/server.py": "",
        "datasets/oneseek_identity_v1.jsonl": '{"instruction": "Who are you?", "output": "I am OneSeek."}\n',
        "ml/ledger/2025/entry-1.json": '{"adapter": "oneseek-7b-zero-v1.1", "samples": 74}\n',
        "ml/ledger/entry 0.json": "{}\n",
    }.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text, encoding="utf-8")
    start_afresh(monkeypatch, tmp_path / "home")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class StartedByCommand(ServerProcess):
    """A server that a command of the page started."""

    def __init__(self, command: str, log: Path) -> None:
        self.log = log
        with log.open("w") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server", *shlex.split(command)[1:]],
                env={**os.environ, "ONESEEK_THREADS": "1", "PYTHONPATH": str(ROOT)},
                stdout=sink,
                stderr=sink,
                preexec_fn=heed_interrupts if sys.platform != "win32" else None,
            )


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def oneseek(command: str) -> int:
    assert command.startswith("oneseek ")
    return main(shlex.split(command)[1:])


def commands(*starts: str) -> Generator[str]:
    """The next commands of the page, which have to begin as told."""
    for start in starts:
        assert COMMANDS[0].startswith(start), COMMANDS
        yield COMMANDS.pop(0)


def test_the_page_leads_to_the_first_answer(
    installation: Path, tmp_path: Path, port: int, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "COMMANDS", list(COMMANDS))
    before = snapshot(installation)
    look, dry = commands("oneseek models", "oneseek adapters import weights --dry-run")
    assert oneseek(look) == 0
    assert "mistral-7b-instruct" in capsys.readouterr().out
    assert oneseek(dry) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0].split() for line in shown[:2]] == [
        ["would", "import", "oneseek-7b-zero@v1.1", "(active)"],
        ["would", "import", "oneseek-7b-zero-sv@v1.1", "(active)"],
    ]
    assert not (tmp_path / "home" / "registry").exists()

    for command in commands("oneseek adapters import weights", "oneseek adapters import lora_adapters"):
        assert oneseek(command) == 0
    assert "1 imported" in capsys.readouterr().out
    (listing,) = commands("oneseek adapters list")
    assert oneseek(f"{listing} --json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["active"], one["language"], one["alpha"]) for one in listed["adapters"]] == [
        ("oneseek-7b-zero@v1.1", True, "en", 8),
        ("oneseek-7b-zero@v1.2", False, "en", 16),
        ("oneseek-7b-zero-sv@v1.1", True, "sv", 16),
    ]
    assert listed["not_served"] == [], "what was imported is not reported again"

    (serve,) = commands("oneseek serve --port 5000")
    server = StartedByCommand(serve.replace("5000", str(port)), tmp_path / "log")
    try:
        assert server.url().endswith(f":{port}")
        english, swedish = [ask(command, port) for command in commands("curl ", "curl ")]
        assert (english["adapter"], english["language"]) == ("oneseek-7b-zero@v1.1", "en")
        assert (swedish["adapter"], swedish["language"]) == ("oneseek-7b-zero-sv@v1.1", "sv")
        assert english["tokens"] > 0
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=30) == 0
    finally:
        server.end()
    assert "is a pickle" not in server.log.read_text()
    assert snapshot(installation) == before

    (ledger,) = commands("oneseek ledger show")
    assert oneseek(ledger) == 0
    (made,) = subprocess.run(
        SHELL[-1], shell=True, cwd="ml/ledger", capture_output=True, text=True, check=True
    ).stdout.splitlines()
    digest = f"sha256:{made.split()[0]}"
    assert digest == provenance_digest(Path("ml/ledger"))
    assert digest.removeprefix("sha256:")[:12] in capsys.readouterr().out
    imports = [one.record for one in Ledger.open(tmp_path / "home" / "ledger").entries()]
    assert {record.inputs["provenance"] for record in imports if record.action == "import"} == {digest}
    assert not COMMANDS, "every command of the page was run"


def ask(command: str, port: int) -> Any:
    here = command.replace("localhost:5000", f"127.0.0.1:{port}")
    assert here != command
    assert "Content-Type" not in command
    done = subprocess.run(here, shell=True, capture_output=True, check=True, text=True, timeout=60)
    return json.loads(done.stdout)


def test_what_is_not_imported_is_reported_by_its_folder(installation: Path, tmp_path: Path) -> None:
    notes = open_catalogue(resolve_settings({}).settings).notes
    assert [note.rpartition("oneseek adapters import ")[2].strip('"') for note in notes] == [
        str(installation / "weights"),
        str(installation / "lora_adapters" / "oneseek-7b-zero-v1.2" / "adapter.pth") + '" --language en',
    ]
    assert "oneseek-7b-zero-v1.1-SV.pth, oneseek-7b-zero-v1.1.pth" in notes[0]


def test_the_settings_on_the_page_are_settings(tmp_path: Path) -> None:
    (sample,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "oneseek.yaml").write_text(sample, encoding="utf-8")
    assert resolve_settings(environ={}, config=tmp_path / "oneseek.yaml").settings.port == 5000


def test_every_verb_and_file_on_the_page_exists(capsys: Out) -> None:
    helps: dict[str, str] = {}
    for command in re.findall(r"`oneseek ([^`]+)`", PAGE):
        verb = re.match(r"(?:[a-z]+ ?){1,2}", command)
        assert verb, command
        name = verb[0].strip()
        if name not in helps:
            assert main([*name.split(), "--help"]) == 0, command
            helps[name] = capsys.readouterr().out
        for flag in re.findall(r"--[a-z-]+", command):
            assert flag in helps[name] or flag in ("--port", "--base-model"), command
    for target in re.findall(r"\]\(([^)#:]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
