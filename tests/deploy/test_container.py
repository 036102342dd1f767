"""The image of deploy/docker: built, looked into, and run read-only, by a user without rights.

Not proven here: the base python:3.11-slim-bookworm itself (Debian's own Python 3.11 stands for it), Docker's
and Kubernetes' own ways to run an image, and the target `cuda`, whose steps are checked but never run.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.deploy.image import DOCKERFILE, ROOT, Image
from tests.deploy.sandbox import Network, Running, Sandbox, own

URL = "http://127.0.0.1:8000"
PLATFORMS = ("manylinux_2_31_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64")
"""What bookworm's glibc takes."""
CHAT = {"model": "oneseek", "messages": [{"role": "user", "content": "Vem är du?"}], "stream": True}


@pytest.fixture(scope="module")
def sandbox(built: Image, bwrap: Path, tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """As `docker run --read-only --tmpfs /tmp --user`: only the volumes can be written."""
    folder = tmp_path_factory.mktemp("volumes")
    return Sandbox(
        bwrap=bwrap,
        root=built.root,
        writable={own(folder / "home", built.user): "/var/lib/oneseek"},
        environ=built.environ,
        folder=built.config["WorkingDir"],
        user=built.user,
    )


@pytest.fixture(scope="module")
def running(
    built: Image, sandbox: Sandbox, network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("container") / "log"
    started = Running(network.enter(sandbox.command(*built.command)), log)
    try:
        started.until(lambda: started.said("ready on http://0.0.0.0:8000"))
        yield started
    finally:
        started.end()


def inside(network: Network, sandbox: Sandbox, *command: str) -> subprocess.CompletedProcess[str]:
    """As `docker exec`: beside the server, in its network."""
    told = network.enter(sandbox.command(*command))
    return subprocess.run(told, capture_output=True, text=True, timeout=60, check=False)


def health(built: Image) -> list[str]:
    kind, *command = built.healthcheck
    assert kind == "CMD"
    return command


def test_it_says_how_it_is_run(built: Image) -> None:
    assert built.config["User"] == "10001:10001", "a number, which Kubernetes' runAsNonRoot can check"
    assert built.command == ["oneseek", "serve"]
    assert set(built.config["Volumes"]) == {"/var/lib/oneseek", "/srv/oneseek/models"}
    assert set(built.config["ExposedPorts"]) == {"8000/tcp"}


def test_it_holds_what_serves_and_nothing_else(built: Image) -> None:
    (packages,) = (built.root / "opt/oneseek/lib").glob("python3.*/site-packages")
    there = {path.name.partition("-")[0].lower() for path in packages.glob("*.dist-info")}
    assert {"oneseek", "onnxruntime", "starlette"} <= there
    assert not there & {"pip", "setuptools", "torch", "transformers", "vllm", "pytest"}
    assert (packages / "adapters/mini/weights/base/model.safetensors").is_file()
    assert not (built.root / "src").exists()
    for compiler in ("gcc", "cc"):
        assert not (built.root / "usr/bin" / compiler).exists()


def test_the_first_token_comes(running: Running, network: Network) -> None:
    def ask() -> tuple[str, str]:
        with httpx.stream("POST", f"{URL}/v1/chat/completions", json=CHAT, timeout=60) as reply:
            assert reply.status_code == 200
            for line in reply.iter_lines():
                if line.startswith("data: {"):
                    choices = json.loads(line.removeprefix("data: "))["choices"]
                    if text := choices[0]["delta"].get("content"):
                        return text, reply.headers["x-oneseek-adapter"]
        raise AssertionError(running.log.read_text())

    text, adapter = network.run(ask)
    assert text
    assert adapter.startswith("oneseek-mini-sv@")


def test_its_health_check_knows_a_server_that_is_ready(
    built: Image, sandbox: Sandbox, running: Running, network: Network
) -> None:
    assert running.process.poll() is None
    found = inside(network, sandbox, *health(built))
    assert found.returncode == 0, found.stdout + found.stderr
    elsewhere = inside(network, sandbox, "env", "ONESEEK_PORT=8001", *health(built))
    assert elsewhere.returncode == 1
    assert "8001" in elsewhere.stdout


def test_the_server_runs_without_rights_and_can_write_its_volume_alone(
    sandbox: Sandbox, running: Running, network: Network, built: Image
) -> None:
    (server,) = psutil.Process(running.process.pid).children()
    assert set(server.uids()) == {built.user}
    effective = re.search(r"CapEff:\s*(\w+)", Path(f"/proc/{server.pid}/status").read_text())
    assert effective
    assert int(effective[1], 16) == 0
    for place in ("/var/lib/oneseek", "/tmp"):
        assert inside(network, sandbox, "touch", f"{place}/new").returncode == 0, place
    for place in ("/", "/opt/oneseek", "/srv/oneseek", "/etc"):
        assert inside(network, sandbox, "touch", f"{place}/new").returncode != 0, place


def test_verbs_are_run_beside_the_server(sandbox: Sandbox, running: Running, network: Network) -> None:
    assert running.process.poll() is None
    found = inside(network, sandbox, "oneseek", "adapters", "list", "--json")
    assert "oneseek-mini-sv" in found.stdout, found.stderr


def test_as_the_first_process_of_its_container_it_stops_when_told(
    built: Image, sandbox: Sandbox, bwrap: Path, tmp_path: Path
) -> None:
    with_port = network_of(bwrap)
    try:
        started = Running(with_port.enter(sandbox.command(*built.command)), tmp_path / "log")
        started.until(lambda: started.said("ready on"))
        (server,) = psutil.Process(started.process.pid).children()
        assert server.cmdline()[-1] == "serve"
        server.send_signal(signal.SIGTERM)
        assert started.process.wait(30) == 0
        assert inside(with_port, sandbox, *health(built)).returncode == 1
    finally:
        with_port.close()


def network_of(bwrap: Path) -> Network:
    """One more, for a second server on the same port."""
    return Network(bwrap)


# The target `cuda`, step by step.


def stages() -> dict[str, list[str]]:
    """Stage → its instructions, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE))
    found: dict[str, list[str]] = {}
    name = ""
    for line in filter(None, text.splitlines()):
        if match := re.match(r"FROM (\S+) AS (\S+)", line):
            name = match[2]
            found[name] = list(found.get(match[1], ()))
        elif name:
            found[name].append(line)
    return found


def test_every_step_of_cuda_has_what_it_takes() -> None:
    steps = stages()
    copied = [step.split()[1:-1] for step in steps["cuda"] + steps["build-cuda"] if step.startswith("COPY ")]
    sources = [source for words in copied if not words[0].startswith("--") for source in words]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    stage_sources = [words[0].removeprefix("--from=") for words in copied if words[0].startswith("--from=")]
    assert set(stage_sources) <= steps.keys()
    assert steps["cuda"][-1] == steps["cpu"][-1] == "USER 10001:10001"


def test_the_packages_that_cuda_takes_from_debian_are_there() -> None:
    (install,) = (step for step in stages()["cuda"] if "apt-get" in step)
    words = install.partition("install ")[2].partition("&&")[0].split()
    packages = [word for word in words if not word.startswith("-")]
    assert packages
    apt = shutil.which("apt-get")
    assert apt
    done = subprocess.run(
        [apt, "install", "--simulate", "--quiet=2", "--no-install-recommends", *packages],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_there_is_a_vllm_that_cuda_can_take_as_wheels_alone(tmp_path: Path) -> None:
    """For the base's Python and its glibc: nothing would be compiled, and nothing is installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [requirement.partition(";")[0] for requirement in project["optional-dependencies"]["vllm"]]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
        "--only-binary=:all:",
    ]
    done = subprocess.run(
        [*command, "--python-version", "3.11", *platforms, "--target", str(tmp_path / "none"), *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"Would install .*\bvllm-0\.\d+", done.stdout)
    assert not (tmp_path / "none").exists()
