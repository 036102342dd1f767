"""One cluster of two replicas for all tests; what kills replicas waits until they are two again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray.cluster import ROOT
from tests.ray.running import ADMIN, Cluster

SETTINGS = """\
base_model: {base}
home: {home}
threads: 1
max_num_seqs: 8
max_queue: 24
max_adapters: 3
adapters: [en={base}-en, sv={base}-sv]
adapter_roots: [{roots}]
api_keys: [first-key, second-key]
admin_keys: [{admin}]
follow_registry: 0.5
log_level: warning
"""


@pytest.fixture(scope="session")
def random_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base of 28 million parameters, some milliseconds a token; six adapters lie beside it."""
    folder = tmp_path_factory.mktemp("models") / "random"
    adapters = ",".join(f"{name}:8" for name in ("en", "sv", "zero-1", "zero-2", "cold-1", "cold-2"))
    command = [sys.executable, "-m", "bench.random_model", str(folder), "--preset", "28m"]
    subprocess.run([*command, "--adapters", adapters], check=True, cwd=ROOT, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def cluster(random_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    roots = random_base.parent
    config = SETTINGS.format(base=random_base, home=folder / "home", roots=roots, admin=ADMIN)
    running = Cluster(folder, config)
    try:
        running.wait()
        yield running
    finally:
        running.end()
