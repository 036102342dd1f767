"""The registry under processes that are killed, and under several at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adapters.registry.registry import Registry
from adapters.registry.verify import verify_version
from tests.adapters.registry.crashing import BASE, with_ledger

ROOT = Path(__file__).resolve().parents[3]
Make = Callable[..., Path]
ADD = """
import sys
from pathlib import Path
from adapters.registry.registry import Registry
from tests.adapters.registry.crashing import BASE, with_ledger
for folder in sys.argv[2:]:
    version = Registry(Path(sys.argv[1])).add(Path(folder), base=BASE).adapter.version
    Registry(Path(sys.argv[1])).promote(f"zero@{version}")
"""


def folders(make_adapter: Make, count: int) -> list[Path]:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    return [
        make_adapter(f"{number}/zero", tensors={name: np.full((32, 4), number + 1, np.float32)})
        for number in range(count)
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_writer_killed_at_any_step_leaves_the_old_state_or_the_new(
    tmp_path: Path, make_adapter: Make
) -> None:
    first, second, third = folders(make_adapter, 3)
    registry = with_ledger(tmp_path / "home")
    registry.add(first, base=BASE)
    registry.add(second, base=BASE)
    command = [sys.executable, "-m", "tests.adapters.registry.crashing", str(tmp_path / "home"), str(third)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps = dict(line.split() for line in done.stdout.splitlines())
    assert int(steps["add"]) > 10
    assert int(steps["promote"]) > 3
    assert int(steps["canary"]) > 3
    assert int(steps["shadow"]) > 3
    assert int(steps["settle"]) > 3
    assert int(steps["delete"]) > 5


def test_processes_at_once_lose_nothing(tmp_path: Path, make_adapter: Make) -> None:
    made = folders(make_adapter, 9)
    home = tmp_path / "home"
    command = [sys.executable, "-c", ADD, str(home)]
    running = [
        subprocess.Popen([*command, *map(str, made[start::3])], cwd=ROOT, stderr=subprocess.PIPE)
        for start in range(3)
    ]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    listing = Registry(home).listing()
    assert [entry.version for entry in listing.entries] == [f"v1.{number}" for number in range(9)]
    assert all(verify_version(entry, BASE).problem is None for entry in listing.entries)
    assert len({entry.recorded_digest for entry in listing.entries}) == 9
    assert sorted(set(listing.pointers.state("zero").history)) == [f"v1.{number}" for number in range(9)]
