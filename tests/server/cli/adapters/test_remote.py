"""`oneseek adapters add` with a URL, as a user types it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.lora.digest import adapter_digest
from server.__main__ import main
from tests.adapters.remote.hosts import WebHost, trickle, web_host
from tests.server.http_server import eventually

Out = pytest.CaptureFixture[str]
Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(tiny_base, tmp_path / "root" / "models" / "mistral-7b-instruct")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("ONESEEK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "home"


@pytest.fixture
def web() -> Iterator[WebHost]:
    with web_host() as host:
        yield host


def test_it_prints_the_entry_for_the_settings(web: WebHost, make_adapter: Make, capsys: Out) -> None:
    folder = make_adapter("printed", 91)
    url, digest = web.put("far/mine-v1.1", folder), adapter_digest(folder)
    assert main(["adapters", "add", f"{url}?sig=hunter2", "--language", "sv"]) == 0
    out, err = capsys.readouterr()
    pinned = f"mine@v1.1={url}#{digest}"
    assert f"  - {pinned}" in out.splitlines()
    assert "mine@v1.1" in out.splitlines()[-1]
    assert "hunter2" not in out + err
    asked = len(web.asked)
    assert main(["adapters", "add", url, "--digest", digest, "--json"]) == 0
    assert len(web.asked) == asked, "what is pinned and there is not fetched again"
    shown = json.loads(capsys.readouterr().out)
    assert (shown["pinned"], shown["new"]) == (pinned, False)
    assert main(["ledger", "show", "mine@v1.1"]) == 0
    assert url in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_fetch_that_is_ended_leaves_nothing(web: WebHost, home: Path, number: int, code: int) -> None:
    ended = threading.Event()
    web.answers["/far"] = trickle(0.02, ended)
    command = [sys.executable, "-m", "server", "adapters", "add", f"{web.url}/far", "--alias", "far"]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    # A shell has what runs in the background ignore SIGINT, and processes inherit that.
    with subprocess.Popen(
        command,
        env=environ,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert eventually(lambda: bool(web.asked), 60)
        time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(30) == code
    assert ended.wait(10)
    assert not (home / "fetch").exists()


def test_a_refusal_is_one_line_and_leaves_nothing(
    web: WebHost, make_adapter: Make, capsys: Out, home: Path
) -> None:
    url = web.put("far/mine", make_adapter("refused", 92))
    capsys.readouterr()
    for arguments, code in (
        ([url, "--digest", "sha256:" + "0" * 64], 1),
        ([url, "--digest", "abc"], 2),
        ([f"{web.url}/none"], 1),
        ([url, "--max-fetch-size", "100"], 1),
        (["lora_adapters/mine", "--digest", "sha256:" + "0" * 64], 2),
        (["https://user:hunter2@example.com/a"], 2),
        (["http://example.com/a"], 2),
        (["ftp://example.com/a"], 2),
    ):
        assert main(["adapters", "add", *arguments]) == code, arguments
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1), err
        assert "hunter2" not in err
    assert not (home / "fetch").exists()
    assert not list(home.glob("registry/[!.]*"))
