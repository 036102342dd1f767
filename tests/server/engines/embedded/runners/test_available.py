from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from server.engines.embedded.runners.available import available_memory

MIB = 1 << 20


def group(folder: Path, names: tuple[str, str], limit: str, used: int, cached: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(limit + "\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\nactive_file 0\n")


def test_the_nearest_limit_of_version_2_counts_and_the_file_cache_is_free(tmp_path: Path) -> None:
    names = ("memory.max", "memory.current")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/outer/inner\n")
    group(tmp_path / "outer", names, str(64 * MIB), 60 * MIB, 16 * MIB)
    group(tmp_path / "outer" / "inner", names, "max", 30 * MIB)
    assert available_memory(tmp_path, membership) == 20 * MIB
    group(tmp_path / "outer" / "inner", names, str(32 * MIB), 30 * MIB)
    assert available_memory(tmp_path, membership) == 2 * MIB
    group(tmp_path / "outer" / "inner", names, str(32 * MIB), 40 * MIB)
    assert available_memory(tmp_path, membership) == 0


def test_version_1_and_a_container_that_sees_only_its_root(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("4:memory:/docker/abc\n2:cpu:/\n0::/\n")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    group(tmp_path / "memory", names, str(48 * MIB), 8 * MIB)
    assert available_memory(tmp_path, membership) == 40 * MIB


@pytest.mark.parametrize("text", ["", "0::/nowhere\n"])
def test_without_a_limit_it_is_the_machines(tmp_path: Path, text: str) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text(text)
    free = psutil.virtual_memory()
    for path in (membership, tmp_path / "missing"):
        assert 0 < available_memory(tmp_path, path) <= free.total
