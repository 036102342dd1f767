"""The unit of deploy/systemd: what systemd says of it, and its very command under its restrictions.

No systemd runs here: bubblewrap gives the command the unit's view of the file system, and libseccomp its
filters of system calls. Not proven: cgroups (`DevicePolicy`), restarts and the watchdog's, and the drop-in
for GPUs beyond its syntax.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.asgi.listening import LAST_WORDS
from server.config.settings import resolve_settings
from tests.deploy.image import ROOT, Image
from tests.deploy.sandbox import Network, Running, Sandbox
from tests.deploy.seccomp import filters

UNITS = ROOT / "deploy" / "systemd"
UNIT, DROP_IN, SYSUSERS, SETTINGS = (
    UNITS / name for name in ("oneseek.service", "oneseek-gpu.conf", "oneseek.sysusers", "oneseek.yaml")
)
STRICT = 2.0
"""The most exposure that `systemd-analyze security` may find, of 10."""
TARGETS = ("basic", "network", "network-online", "multi-user", "shutdown", "sysinit")
SYSTEM_UNITS = Path("/usr/lib/systemd/system")
URL = "http://127.0.0.1:8000"
NOTIFY = "/run/notify"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or not SYSTEM_UNITS.is_dir(), reason="systemd is not installed"
)


def service() -> dict[str, list[str]]:
    """`[Service]` of the unit: each name with all its values."""
    section = UNIT.read_text().partition("[Service]")[2].partition("\n[")[0]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def seconds(text: str) -> float:
    """A time span such as `60` or `30min`."""
    match = re.fullmatch(r"(\d+)(s|min|h)?", text)
    assert match, text
    return int(match[1]) * {"": 1, "s": 1, "min": 60, "h": 3600}[match[2] or ""]


@pytest.fixture(params=["alone", "gpu"])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A root with the unit, by itself or with the drop-in for GPUs."""
    folder = tmp_path / "etc/systemd/system"
    (folder / "oneseek.service.d").mkdir(parents=True)
    shutil.copy(UNIT, folder)
    if request.param == "gpu":
        shutil.copy(DROP_IN, folder / "oneseek.service.d" / "gpu.conf")
    program = tmp_path / service()["ExecStart"][0].split()[0].lstrip("/")
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    units = tmp_path / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for target in TARGETS:
        shutil.copy(SYSTEM_UNITS / f"{target}.target", units)
    return tmp_path


@needs_systemd
def test_systemd_finds_no_mistake(installed: Path) -> None:
    command = ["systemd-analyze", "verify", "--man=no", f"--root={installed}", "oneseek.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_systemd_finds_little_exposure(installed: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--root={installed}"]
    done = subprocess.run([*command, "oneseek.service"], capture_output=True, text=True, check=True)
    found = re.search(r"exposure level for oneseek.service: ([0-9.]+)", done.stdout)
    assert found, done.stdout
    assert float(found[1]) <= STRICT


@needs_systemd
def test_the_user_is_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    place = tmp_path / "usr/lib/sysusers.d"
    place.mkdir(parents=True)
    shutil.copy(SYSUSERS, place / "oneseek.conf")
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}"], check=True, capture_output=True)
    user, _, _, _, _, home, _ = (tmp_path / "etc/passwd").read_text().split(":")
    assert [user] == service()["User"]
    assert [home] == service()["WorkingDirectory"]


def test_a_stop_has_time_for_the_drain() -> None:
    settings = resolve_settings(environ={}, config=SETTINGS).settings
    needed = settings.drain_delay + settings.drain_seconds + LAST_WORDS
    assert seconds(service()["TimeoutStopSec"][0]) > needed


def test_the_unit_reads_the_settings_that_are_beside_it() -> None:
    command = shlex.split(service()["ExecStart"][0])
    assert command[-2:] == ["--config", "/etc/oneseek/oneseek.yaml"]


# Its command, confined.


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[socket.socket]:
    """The socket of the service manager."""
    folder = tmp_path_factory.mktemp("notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reading:
        reading.bind(str(folder / "socket"))
        reading.settimeout(60)
        yield reading


@pytest.fixture(scope="module")
def confined(
    built: Image,
    bwrap: Path,
    network: Network,
    manager: socket.socket,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    unit, folder = service(), tmp_path_factory.mktemp("unit")
    state = folder / "state"
    state.mkdir()
    for place in ("etc/oneseek", "var/lib/oneseek"):
        (built.root / place).mkdir(parents=True, exist_ok=True)
    (variable,) = unit["Environment"]
    environ = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "NOTIFY_SOCKET": f"{NOTIFY}/socket"}
    sandbox = Sandbox(
        bwrap=bwrap,
        root=built.root,
        read_only={UNITS: "/etc/oneseek"},
        writable={state: "/var/lib/oneseek", Path(str(manager.getsockname())).parent: NOTIFY},
        empty=("/tmp", "/var/tmp", "/run", "/home", "/root"),
        environ={**environ, **dict([variable.split("=", 1)])},
        folder=unit["WorkingDirectory"][0],
        seccomp=tuple(filters(unit, folder)),
    )
    started = Running(network.enter(sandbox.command(*shlex.split(unit["ExecStart"][0]))), folder / "log")
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.end()


def received(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


def test_it_starts_answers_and_drains_under_the_units_restrictions(
    confined: Running, manager: socket.socket, network: Network
) -> None:
    try:
        assert received(manager)["READY"] == "1"
    except TimeoutError:
        raise AssertionError(confined.log.read_text()) from None
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    ask = {
        "model": "base",
        "prompt": "Hej",
        "max_tokens": 20,
        # A process of its own tries the grammar.
        "structured_outputs": {"json": schema},
    }
    reply = network.run(lambda: httpx.post(f"{URL}/v1/completions", json=ask, timeout=60))
    assert reply.status_code == 200, reply.text
    first = threading.Event()

    def stream() -> list[str]:
        body = {
            "model": "base",
            "prompt": "Hej",
            "max_tokens": 200,
            "n": 8,
            "ignore_eos": True,
            "stream": True,
        }
        with httpx.stream("POST", f"{URL}/v1/completions", json=body, timeout=60) as answer:
            lines: list[str] = []
            for line in filter(None, answer.iter_lines()):
                lines.append(line)
                first.set()
            return lines

    running = network.start(stream)
    assert first.wait(60)
    confined.stop()
    assert received(manager)["STOPPING"] == "1"
    *_, last, done = running.result(60)
    assert done == "data: [DONE]"
    assert json.loads(last.removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert confined.process.wait(seconds(service()["TimeoutStopSec"][0])) == 0
    log = confined.log.read_text()
    assert "warning" not in log.replace("warning: host", "")
    assert "ERROR" not in log
    assert "Traceback" not in log


def test_the_restrictions_hold(built: Image, bwrap: Path, tmp_path: Path) -> None:
    """Else the test above would prove little."""
    sandbox = Sandbox(bwrap=bwrap, root=built.root, seccomp=tuple(filters(service(), tmp_path)))
    attempts = {
        "import mmap; mmap.mmap(-1, 4096, prot=7)": "PermissionError",
        "import socket; socket.socket(socket.AF_NETLINK)": "OSError",
        "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0": "AssertionError",
        "import os; os.setuid(10001)": "PermissionError",
        "open('/etc/new', 'w')": "Read-only",
    }
    for code, error in attempts.items():
        command = sandbox.command("/opt/oneseek/bin/python", "-c", code)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert error in done.stderr, (code, done.stderr)
