"""Finding and building graphs, torn and foreign ones, several builders at once."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.random_model import DecoderShape, write_model
from server.engines.embedded.model.builder import DATA_FILE, GRAPH_FILE
from server.engines.embedded.model.cache import BUILDER_VERSION, MANIFEST_FILE, STALE_SECONDS, prepare
from server.engines.embedded.model.checkpoint import CheckpointError
from server.engines.embedded.model.variants import FUSED, PORTABLE
from server.engines.embedded.runners.cpu.runner import CpuRunner
from tests.adapters.files.disk import full

SHAPE = DecoderShape(64, 2, 4, 2, 16, 96, 300, 64)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "base"
    write_model(folder, SHAPE)
    return folder


def first_logits(base: Path, graphs: Path, digest: str = "sha256:0") -> NDArray[np.float32]:
    return CpuRunner(prepare(base, graphs, digest), 1, 32, threads=1).prefill(0, 0, [1, 2, 3], (), [2]).copy()


def test_a_graph_is_built_once_with_progress(base: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))

    built = prepare(base, tmp_path, "sha256:0", progress=progress)
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert built.folder.parent.name == "sha256-0"
    stamp = (built.folder / DATA_FILE).stat().st_mtime_ns
    seen.clear()
    assert prepare(base, tmp_path, "sha256:0", progress=progress) == built
    assert not seen
    assert (built.folder / DATA_FILE).stat().st_mtime_ns == stamp


def test_settings_and_bases_do_not_share_a_folder(base: Path, tmp_path: Path) -> None:
    folders = {
        prepare(base, tmp_path, digest, quantize, variant=FUSED).folder
        for digest in ("sha256:0", "sha256:1")
        for quantize in ("none", "int8", "int4")
    }
    folders.add(prepare(base, tmp_path, "sha256:0", variant=PORTABLE).folder)
    folders.add(prepare(base, tmp_path, "sha256:0", variant=PORTABLE, dtype="fp16").folder)
    assert len(folders) == 8


@pytest.mark.parametrize("file", [GRAPH_FILE, DATA_FILE, MANIFEST_FILE])
@pytest.mark.parametrize("damage", ["short", "missing"])
def test_a_torn_graph_is_built_again(base: Path, tmp_path: Path, file: str, damage: str) -> None:
    expected = first_logits(base, tmp_path)
    path = prepare(base, tmp_path, "sha256:0").folder / file
    path.unlink() if damage == "missing" else os.truncate(path, path.stat().st_size // 2)
    np.testing.assert_array_equal(first_logits(base, tmp_path), expected)
    assert [entry.name for entry in path.parent.parent.iterdir()] == [path.parent.name]


def test_a_graph_of_an_older_builder_is_not_taken(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr("server.engines.embedded.model.cache.BUILDER_VERSION", BUILDER_VERSION - 1)
        before = prepare(base, tmp_path, "sha256:0").folder
    seen: list[int] = []
    assert prepare(base, tmp_path, "sha256:0", progress=lambda done, _: seen.append(done)).folder != before
    assert seen


def test_a_graph_of_another_base_is_not_taken(base: Path, tmp_path: Path) -> None:
    mine = prepare(base, tmp_path, "sha256:0").folder
    other = prepare(base, tmp_path, "sha256:1").folder
    (mine / MANIFEST_FILE).write_bytes((other / MANIFEST_FILE).read_bytes())
    seen: list[int] = []
    prepare(base, tmp_path, "sha256:0", progress=lambda done, _: seen.append(done))
    assert seen


def test_a_failed_build_leaves_nothing(base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((base / "config.json").read_text().replace("300", "301"))
    (broken / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"embed_tokens.*\[300, 64\].*\[301, 64\]"):
        prepare(broken, tmp_path / "graphs", "sha256:0")
    assert not list((tmp_path / "graphs" / "sha256-0").iterdir())


def test_left_overs_of_killed_builds_are_removed_when_old(base: Path, tmp_path: Path) -> None:
    parent = tmp_path / "sha256-0"
    old = [parent / name for name in (".building-old", ".torn-old", ".gqa.00112233aabb.tmp")]
    young = parent / ".gqa.aabb00112233.tmp"
    past = time.time() - STALE_SECONDS - 60
    for folder in (*old, young):
        folder.mkdir(parents=True)
        if folder != young:
            os.utime(folder, (past, past))
    built = prepare(base, tmp_path, "sha256:0").folder
    assert {path.name for path in parent.iterdir()} == {young.name, built.name}


def test_threads_may_build_at_once(base: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(prepare, [base] * 4, [tmp_path] * 4, ["sha256:0"] * 4))
    assert len(set(built)) == 1
    assert len(list(built[0].folder.parent.iterdir())) == 1
    first_logits(base, tmp_path)


def test_processes_may_build_at_once(base: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from server.engines.embedded.model.cache import prepare;"
        "print(prepare(Path(sys.argv[1]), Path(sys.argv[2]), 'sha256:0').folder.name)"
    )
    command = [sys.executable, "-c", code, str(base), str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({process.communicate(timeout=120)[0] for process in processes}) == 1
    assert all(process.returncode == 0 for process in processes)
    assert len(list((tmp_path / "sha256-0").iterdir())) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("room", [0, 100, 100_000])
def test_a_full_disk_leaves_no_half_of_a_graph(base: Path, tmp_path: Path, room: int) -> None:
    with full(room), pytest.raises(OSError, match=str(tmp_path)):
        prepare(base, tmp_path, "sha256:0")
    assert not list((tmp_path / "sha256-0").iterdir())
    assert prepare(base, tmp_path, "sha256:0").folder.is_dir()


def test_a_graph_that_cannot_fit_is_not_begun(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def free_space(_place: object) -> SimpleNamespace:
        return SimpleNamespace(free=1000)

    monkeypatch.setattr("shutil.disk_usage", free_space)
    with pytest.raises(OSError, match="MiB") as caught:
        prepare(base, tmp_path, "sha256:0")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "sha256-0"))
    assert not list((tmp_path / "sha256-0").iterdir())


@pytest.mark.parametrize(("digest", "quantize"), [("../up", "none"), ("", "none"), ("sha256:0", "int2")])
def test_impossible_names_and_settings_are_refused(
    base: Path, tmp_path: Path, digest: str, quantize: str
) -> None:
    with pytest.raises(ValueError, match=r"base_digest|quantize"):
        prepare(base, tmp_path, digest, quantize)


def test_building_needs_no_more_memory_than_a_few_weights(base: Path, tmp_path: Path) -> None:
    """Heap memory, that is; what is mapped of the built file belongs to the system."""
    resource = pytest.importorskip("resource")
    big = tmp_path / "big"
    write_model(big, DecoderShape(512, 8, 8, 4, 64, 1408, 4096))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prepare(big, tmp_path / "graphs", "sha256:0", "int8")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 512 << 20
