"""The Compose file of deploy/compose: each service's command as a process, with its mounts and names.

OneSeek runs from the image, Prometheus is Debian's, and both are in one network under the names that Compose
gives them. Not proven: Docker Compose itself, the images of Prometheus and Grafana, and Grafana altogether,
which Debian does not have: its provisioning files are only read.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.asgi.listening import LAST_WORDS
from server.config.settings import resolve_settings
from tests.deploy.compose import Mount, mounts, read, read_env, seconds
from tests.deploy.image import ROOT, Image
from tests.deploy.sandbox import Network, Running, Sandbox, own

COMPOSE = ROOT / "deploy" / "compose"
FILE, CUDA = COMPOSE / "compose.yaml", COMPOSE / "compose.cuda.yaml"
SECRETS = {"API_KEYS": "a-tenants-key", "METRICS_KEY": "for-prometheus", "GRAFANA_PASSWORD": "x"}
NOBODY = 65534
"""Whom the image of Prometheus runs as."""


def document() -> dict[str, Any]:
    return read(FILE, SECRETS)


@dataclass(frozen=True, slots=True)
class Stack:
    network: Network
    oneseek: Running
    prometheus: Running


@pytest.mark.parametrize("path", [FILE, CUDA], ids=lambda path: path.name)
def test_the_files_fit_composes_schema(path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_nothing_starts_without_its_keys(missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        read(FILE, {name: value for name, value in SECRETS.items() if name != missing})


@pytest.mark.parametrize("name", ["oneseek", "prometheus", "grafana"])
def test_every_service_has_few_rights(name: str) -> None:
    service = document()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    # A secret that is not a file cannot be put into a container that is read-only.
    for secret in service.get("secrets", ()):
        assert document()["secrets"][secret].keys() == {"file"}


def test_images_have_exact_tags() -> None:
    services = document()["services"]
    for name in ("prometheus", "grafana"):
        assert re.fullmatch(r"docker\.io/\S+:v?\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?", services[name]["image"])
    assert (FILE.parent / services["oneseek"]["build"]["context"]).resolve() == ROOT
    targets = re.findall(r" AS (\w+)$", (ROOT / "deploy/docker/Dockerfile").read_text(), re.MULTILINE)
    with_gpu = read(CUDA, {})["services"]["oneseek"]
    assert {services["oneseek"]["build"]["target"], with_gpu["build"]["target"]} <= set(targets)


def test_a_stop_has_time_for_the_drain() -> None:
    service = document()["services"]["oneseek"]
    settings = resolve_settings(environ=service["environment"]).settings
    needed = settings.drain_delay + settings.drain_seconds + LAST_WORDS
    assert seconds(service["stop_grace_period"]) > needed


def test_keys_are_made_once(tmp_path: Path) -> None:
    shutil.copy(COMPOSE / "keys.sh", tmp_path)

    def run() -> dict[str, str]:
        subprocess.run(["sh", str(tmp_path / "keys.sh")], check=True, capture_output=True)
        return read_env(tmp_path / ".env")

    made = run()
    assert made.keys() == SECRETS.keys()
    assert len({*made.values()}) == len(made)
    assert all(re.fullmatch(r"[0-9a-f]{64}", key) for key in made.values())
    assert (tmp_path / "metrics-key").read_text() == made["METRICS_KEY"]
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    assert run() == made
    # What it names beside the keys is what the file asks for.
    text = FILE.read_text()
    named = re.findall(r"^#?([A-Z_]+)=", (tmp_path / ".env").read_text(), re.MULTILINE)
    for name in named:
        assert f"${{{name}:" in text, name


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ('METRICS_KEY="a key"\n', "a key"),
        ("METRICS_KEY='mine'\r\nPORT=8010", "mine"),
        ("METRICS_KEY=old\nMETRICS_KEY=new\n", "new"),
        ("PORT=8010", None),
        ("METRICS_KEY=\nAPI_KEYS=mine\n", None),
        ("", None),
    ],
)
def test_a_file_of_keys_that_was_written_by_hand(tmp_path: Path, written: str, key: str | None) -> None:
    shutil.copy(COMPOSE / "keys.sh", tmp_path)
    (tmp_path / ".env").write_bytes(written.encode())
    for _ in range(2):
        subprocess.run(["sh", str(tmp_path / "keys.sh")], check=True, capture_output=True)
    text = (tmp_path / ".env").read_bytes().decode()
    assert text.startswith(written)
    made = dict(line.split("=", 1) for line in text.splitlines())
    assert made.keys() >= SECRETS.keys()
    assert all(made[name] for name in SECRETS)
    assert (tmp_path / "metrics-key").read_text() == (key or made["METRICS_KEY"])


def test_grafana_finds_its_source_and_its_boards() -> None:
    """As far as its files say: Grafana itself is not run."""
    service = document()["services"]["grafana"]
    placed = {mount.target: FILE.parent / mount.source for mount in mounts(service) if not mount.named}
    provisioning = placed[service["environment"]["GF_PATHS_PROVISIONING"]]
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    port = next(word for word in document()["services"]["prometheus"]["command"] if "listen-address" in word)
    assert source["url"] == f"http://prometheus:{port.rpartition(':')[2]}"
    assert source["type"] == "prometheus"
    assert source["isDefault"] is True
    (provider,) = yaml.safe_load((provisioning / "dashboards/boards.yaml").read_text())["providers"]
    boards = [json.loads(path.read_text()) for path in placed[provider["options"]["path"]].rglob("*.json")]
    for board in boards:
        assert board["uid"]
        assert board["panels"]


# The services, run.


def arrange(service: dict[str, Any], folder: Path, user: int) -> tuple[dict[Path, str], dict[Path, str]]:
    """What a service can read and what it can write, here → there. What is missing is an empty folder."""
    read_only: dict[Path, str] = {}
    writable: dict[Path, str] = {}
    for mount in mounts(service):
        here = _source(mount, folder)
        if mount.named:
            writable[own(here, user)] = mount.target
        else:
            if not here.exists():
                here.mkdir(parents=True)
            read_only[here] = mount.target
    for secret in service.get("secrets", ()):
        read_only[folder / Path(document()["secrets"][secret]["file"]).name] = f"/run/secrets/{secret}"
    return read_only, writable


def _source(mount: Mount, folder: Path) -> Path:
    if mount.named:
        return folder / "volumes" / mount.source
    # Users' folders and secrets lie beside the file, but not in the tree.
    here = (COMPOSE / mount.source).resolve()
    return here if here.exists() else folder / "host" / Path(mount.source).name


@pytest.fixture(scope="module")
def stack(
    built: Image,
    bwrap: Path,
    network: Network,
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("compose")
    services = document()["services"]
    (folder / "hosts").write_text(f"127.0.0.1 localhost {' '.join(services)}\n")
    (folder / "metrics-key").write_text(SECRETS["METRICS_KEY"])
    (folder / "metrics-key").chmod(0o644)
    folder.chmod(0o755)

    oneseek = services["oneseek"]
    read_only, writable = arrange(oneseek, folder, built.user)
    ours = Sandbox(
        bwrap=bwrap,
        root=built.root,
        read_only=read_only,
        writable=writable,
        environ={**built.environ, **oneseek["environment"]},
        empty=[place.partition(":")[0] for place in oneseek["tmpfs"]],
        folder=built.config["WorkingDir"],
        user=built.user,
    )
    command = ours.command(*built.config["Entrypoint"], *oneseek["command"])

    prometheus = services["prometheus"]
    read_only, writable = arrange(prometheus, folder, NOBODY)
    program = Path(str(pytestconfig.getoption("prometheus")))
    theirs = Sandbox(
        bwrap=bwrap,
        read_only={**read_only, folder / "hosts": "/etc/hosts", program: "/opt/prometheus"},
        writable=writable,
        user=NOBODY,
    )
    running: list[Running] = []
    try:
        running.append(Running(network.enter(command), folder / "oneseek.log"))
        running[0].until(lambda: running[0].said("ready on http://0.0.0.0:8000"))
        scraping = theirs.command("/opt/prometheus", *prometheus["command"])
        running.append(Running(network.enter(scraping), folder / "prometheus.log"))
        running[1].until(lambda: bool(running[1].said("Server is ready")))
        yield Stack(network, *running)
    finally:
        for one in running:
            one.end()


def target(stack: Stack) -> dict[str, Any]:
    """What Prometheus says of the one target that it has; at first it has none."""
    url = "http://127.0.0.1:9090/api/v1/targets"
    found = stack.network.run(lambda: httpx.get(url, timeout=10)).json()["data"]["activeTargets"]
    return found[0] if found else {}


def query(stack: Stack, expression: str) -> list[dict[str, Any]]:
    url = "http://127.0.0.1:9090/api/v1/query"
    answer = stack.network.run(lambda: httpx.get(url, params={"query": expression}, timeout=10))
    return answer.json()["data"]["result"]


def test_oneseek_answers_those_who_have_a_key(stack: Stack) -> None:
    def ask(key: str, path: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.get(f"http://127.0.0.1:8000{path}", headers=headers, timeout=30).status_code

    for key, path, status in (
        (SECRETS["API_KEYS"], "/v1/models", 200),
        ("another", "/v1/models", 401),
        (SECRETS["API_KEYS"], "/metrics", 403),
        (SECRETS["METRICS_KEY"], "/metrics", 200),
    ):
        assert stack.network.run(lambda key=key, path=path: ask(key, path)) == status, path


def test_prometheus_scrapes_it_by_its_name_and_with_its_key(stack: Stack) -> None:
    end = time.monotonic() + 40  # it scrapes every 15 seconds
    while (found := target(stack)).get("health") != "up":
        assert time.monotonic() < end, found.get("lastError")
        time.sleep(0.5)
    assert found["scrapeUrl"] == "http://oneseek:8000/metrics"
    assert query(stack, 'count({job="oneseek"})')[0]["value"][1] != "0"


def test_prometheus_takes_the_rules(stack: Stack) -> None:
    answer = stack.network.run(lambda: httpx.get("http://127.0.0.1:9090/api/v1/rules", timeout=10))
    assert answer.status_code == 200
    groups = answer.json()["data"]["groups"]
    expected = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
    assert {Path(group["file"]).name for group in groups} == {path.name for path in expected}
