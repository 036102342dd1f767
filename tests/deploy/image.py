"""The image that deploy/docker/Dockerfile makes, built by buildah without a daemon, and what runs it."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.deploy.base import BASE, buildah, call, scratch_of
from tests.environments import print_line

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
CERTIFICATES = Path("/etc/ssl/certs")
CONTEXT = (
    *("pyproject.toml", "README.md", "LICENSE", ".dockerignore", "server", "adapters", "routing", "bench"),
    "locks/serve.txt",
    "deploy/docker",
)
"""What the Dockerfile copies, and itself."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image, with its files mounted."""

    root: Path
    config: dict[str, Any]
    """As `docker inspect` shows it under `Config`."""
    healthcheck: Sequence[str]

    @property
    def environ(self) -> dict[str, str]:
        """The variables that it sets."""
        return dict(line.split("=", 1) for line in self.config["Env"])

    @property
    def user(self) -> int:
        """The number of its user."""
        return int(self.config["User"].partition(":")[0])

    @property
    def command(self) -> list[str]:
        """What it runs."""
        return [*self.config["Entrypoint"], *self.config["Cmd"]]


def prepare(tools: Path, target: str) -> Image:
    """The image of `target` from what lies in the tree now: kept from the last run, or built."""
    name = f"oneseek-test-{target}-{_fingerprint()}"
    containers = json.loads(call(tools, buildah(tools, "containers", "--json")) or "null") or []
    if name not in {container["containername"] for container in containers}:
        _remove(tools)
        print_line(f"building the image {target}")
        call(tools, buildah(tools, "from", "--pull-never", "--name", name, _build(tools, target)))
    found = json.loads(call(tools, buildah(tools, "inspect", "--type", "container", name)))
    config = found["Docker"]["config"]
    root = Path(call(tools, buildah(tools, "mount", name)))
    return Image(root, config, config["Healthcheck"]["Test"])


def _build(tools: Path, target: str) -> str:
    """Build on the base of `make_base`, with the package index of this machine's pip. Returns its name."""
    name = f"localhost/oneseek-test:{target}"
    configuration = _pip_configuration(tools)
    wheels = tools / "pip"
    wheels.mkdir(exist_ok=True)
    volumes = [
        f"{wheels}:/root/.cache/pip",
        f"{configuration}:/etc/pip.conf:ro",
        *_local_sources(configuration),
    ]
    if CERTIFICATES.is_dir():
        volumes.append(f"{CERTIFICATES}:{CERTIFICATES}:ro")
    told = [word for volume in volumes for word in ("--volume", volume)]
    call(
        tools,
        [
            *buildah(tools, "build", "--isolation", "chroot", "--format", "docker", "--pull-never"),
            *("--file", str(DOCKERFILE), "--target", target, "--build-arg", f"BASE={BASE}"),
            *(*told, "--tag", name, str(ROOT)),
        ],
    )
    return name


def _fingerprint() -> str:
    """Of all that goes into an image, and of the base."""
    digest = hashlib.sha256(BASE.encode())
    for place in CONTEXT:
        path = ROOT / place
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _remove(tools: Path) -> None:
    """Remove containers and images, but for the base."""
    call(tools, buildah(tools, "rm", "--all"))
    for image in json.loads(call(tools, buildah(tools, "images", "--all", "--json")) or "null") or []:
        if BASE not in (image.get("names") or ()):
            call(tools, buildah(tools, "rmi", "--force", image["id"]))


def _pip_configuration(tools: Path) -> Path:
    """A pip.conf with what this machine's own says, from wherever it says it, the environment included."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    made = configparser.RawConfigParser()
    made.add_section("global")
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        made.set("global", name.rpartition(".")[2], value.strip("'\"").replace("\\n", "\n"))
    path = scratch_of(tools) / "pip.conf"
    with path.open("w") as file:
        made.write(file)
    path.chmod(0o644)
    return path


def _local_sources(configuration: Path) -> list[str]:
    """Volumes for the folders and files of this machine that pip's configuration names."""
    words = configuration.read_text().split()
    paths = [Path(urlsplit(word).path if word.startswith("file://") else word) for word in words]
    there = [path for path in paths if path.is_absolute() and path.exists() and path != Path(os.sep)]
    # The pages of an index that lies on disk name files beside them.
    there = [path.parent if path.name == "simple" else path for path in there]
    return [f"{path}:{path}:ro" for path in dict.fromkeys(there) if not path.is_relative_to(CERTIFICATES)]
