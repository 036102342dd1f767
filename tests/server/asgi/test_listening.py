"""How a server begins, or says why it does not, as the command line runs it."""

from __future__ import annotations

import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from server.__main__ import main
from server.asgi.listening import bind
from tests.server.http_server import CONTEXT


def mistakes(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and the one line that is no step of the start."""
    code = main(["serve", "--threads", "1", *arguments])
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if not re.match(r"oneseek +\d+\.\d\ds  ", line)]
    return code, line


def test_a_port_in_use_is_one_line(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["--port", port, "--home", str(tmp_path), "--base-model", str(tiny_base)]
        code, line = mistakes(arguments, capsys)
    assert code == 1
    assert f"127.0.0.1:{port}" in line
    assert "--port" in line
    assert not list(tmp_path.iterdir()), "nothing was built for a server that cannot listen"


def test_a_home_that_cannot_be_written_is_one_line(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "file"
    home.touch()
    code, line = mistakes(["--port", "0", "--home", str(home), "--base-model", str(tiny_base)], capsys)
    assert code == 1
    assert "--home" in line
    assert str(home) in line


def test_memory_for_no_request_is_one_line(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--port", "0", "--home", str(tmp_path), "--base-model", str(tiny_base)]
    code, line = mistakes([*arguments, "--kv-cache-memory", "1KiB"], capsys)
    assert code == 1
    assert "kv_cache_memory" in line


def test_a_context_beyond_the_base_is_one_line(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--port", "0", "--home", str(tmp_path), "--base-model", str(tiny_base)]
    code, line = mistakes([*arguments, "--max-model-len", str(CONTEXT + 1)], capsys)
    assert code == 1
    assert f"max_model_len {CONTEXT + 1}" in line


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("tokenizer.json", "{", "tokenizer.json"),
        ("config.json", '{"model_type": "falcon", "architectures": ["FalconForCausalLM"]}', "'falcon'"),
        ("model.safetensors", "cut", "model.safetensors"),
    ],
)
def test_a_base_that_cannot_be_served_is_one_line(
    tiny_base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    content: str,
    named: str,
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    (base / file).write_text(content)
    code, line = mistakes(["--port", "0", "--home", str(tmp_path), "--base-model", str(base)], capsys)
    assert code == 1
    assert named in line


def test_an_adapter_of_another_base_is_one_line(
    tiny_base: Path, tiny_adapters: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sv"
    shutil.copytree(tiny_adapters["sv"], folder)
    weights = load_file(folder / "adapter_model.safetensors")
    wide = {key: np.tile(value, (1, 2)) if "lora_A" in key else value for key, value in weights.items()}
    save_file(wide, folder / "adapter_model.safetensors")
    arguments = ["--port", "0", "--home", str(tmp_path), "--base-model", str(tiny_base)]
    code, line = mistakes([*arguments, "--adapters", f"sv={folder}"], capsys)
    assert code in (1, 2)
    assert "sv" in line


def test_a_graph_that_cannot_be_opened_is_one_line(
    tiny_base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("server.engines.embedded.launch.device_choice.CpuRunner", full)
    arguments = ["--port", "0", "--home", str(tmp_path), "--base-model", str(tiny_base)]
    assert main(["serve", *arguments]) == 1
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert all(part in record.getMessage() for part in (" 96 ", " 256 ", "no room"))


def test_names_with_several_addresses_are_bound_at_each_that_the_machine_has() -> None:
    sockets = bind("localhost", 0)
    addresses = {opened.getsockname()[0] for opened in sockets}
    for opened in sockets:
        opened.close()
    assert "127.0.0.1" in addresses
    assert addresses <= {"127.0.0.1", "::1"}


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OSError, match=r"203\.0\.113\.7:0: .*--host"):
        bind("203.0.113.7", 0)
