"""A merge while it runs: stopped, killed, beside another one, and its progress."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import safe_open

from adapters.files import atomic
from adapters.lora.digest import base_digest
from adapters.merging.merge import MergeError
from adapters.training.loop.progress import Reporter
from bench.random_model import DecoderShape, write_adapter, write_model
from tests.adapters.merging.merges import EVERY, Quiet, job, merged, unchecked


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base of 14 MiB in five files, and an adapter."""
    root = tmp_path_factory.mktemp("larger")
    shape = DecoderShape(256, 4, 4, 2, 64, 704, 1024)
    write_model(root / "base", shape, shard_bytes=3 << 20)
    write_adapter(root / "lora-v1", shape, 8, EVERY, 1)
    return root / "base", root / "lora-v1"


def test_a_merge_that_is_stopped_goes_on_with_what_is_left(larger: tuple[Path, Path], tmp_path: Path) -> None:
    base, lora = larger
    whole = merged(base, lora, tmp_path / "whole")
    assert whole.shards == 5
    partial = tmp_path / ".out.merging"
    kept: dict[str, int] = {}
    for stop_at in (1, 9, 17):
        with pytest.raises(KeyboardInterrupt):
            job(base, lora, tmp_path / "out").run(Quiet(stop_at), unchecked)
        assert not (tmp_path / "out").exists()
        times = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.safetensors")}
        assert kept.items() <= times.items()
        kept = times
    assert len(kept) >= 2
    damaged = next(iter(kept))
    (partial / damaged).write_bytes(b"damaged")
    made = merged(base, lora, tmp_path / "out")
    assert made.digest == whole.digest
    assert made.checks["tensors"] == whole.checks["tensors"]
    after = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in kept}
    assert [name for name in kept if after[name] != kept[name]] == [damaged]


def test_what_was_begun_for_another_adapter_is_not_used(larger: tuple[Path, Path], tmp_path: Path) -> None:
    base, lora = larger
    other = tmp_path / "other-v1"
    write_adapter(other, DecoderShape(256, 4, 4, 2, 64, 704, 1024), 4, ["q_proj"], 2)
    with pytest.raises(KeyboardInterrupt):
        job(base, other, tmp_path / "out").run(Quiet(15), unchecked)
    assert merged(base, lora, tmp_path / "out").digest == merged(base, lora, tmp_path / "again").digest


def test_a_merge_that_is_killed_leaves_nothing_or_goes_on(larger: tuple[Path, Path], tmp_path: Path) -> None:
    base, lora = larger
    whole = merged(base, lora, tmp_path / "whole").digest
    code = (
        "import sys; from pathlib import Path; from adapters.lora.manifest import read_manifest\n"
        "from adapters.merging.merge import Merge; from adapters.training.loop.progress import Reporter\n"
        "base, lora, output = map(Path, sys.argv[1:]); adapter = read_manifest(lora)\n"
        "print(flush=True)\n"
        "Merge(base=base, base_name='b', adapter=adapter, output=output).run(Reporter(), lambda folder: {})"
    )
    output = tmp_path / "out"
    for delay in (0.02, 0.05, 0.1, 0.2):
        command = [sys.executable, "-c", code, str(base), str(lora), str(output)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert child.stdout is not None
        child.stdout.read(1)
        time.sleep(delay)
        child.send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        child.communicate()
        if output.exists():
            assert base_digest(output) == whole
            shutil.rmtree(output)
    assert merged(base, lora, output).digest == whole


def test_two_at_once_do_not_meet(larger: tuple[Path, Path], tmp_path: Path) -> None:
    base, lora = larger

    def second(folder: Path) -> Mapping[str, Any]:
        with pytest.raises(MergeError) as caught:
            merged(base, lora, tmp_path / "out")
        assert caught.value.path.name == ".out.merging"
        return {}

    assert job(base, lora, tmp_path / "out").run(Quiet(), second).new


def test_a_base_that_changes_meanwhile_is_noticed(
    make_base: Callable[..., Path], make_lora: Callable[..., Path], tmp_path: Path
) -> None:
    base = make_base()
    work = job(base, make_lora(base), tmp_path / "out")
    changed = replace(work, output=tmp_path / "other")

    class Meddling(Quiet):
        @contextmanager
        def stage(self, name: str, total: int, done: int = 0) -> Generator[Quiet]:
            yield self
            (base / "tokenizer.json").write_text("{}", encoding="utf-8")

    with pytest.raises(MergeError) as caught:
        changed.run(Meddling(), unchecked)
    assert caught.value.path == base


def test_progress_is_told_in_mebibytes(
    larger: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, lora = larger
    job(base, lora, tmp_path / "out").run(Reporter(every=0), unchecked)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["done"] for line in lines] == sorted(line["done"] for line in lines)
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    assert lines[-1]["done"] == lines[-1]["of"] == math.floor(2 * size / (1 << 20))
    with safe_open(next((tmp_path / "out").glob("*.safetensors")), "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_merge_waits_for_a_scanner(
    larger: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses every other move for a moment, of a shard and of the finished folder."""
    refused: list[str] = []
    for name in ("rename", "replace"):
        move = getattr(os, name)

        def scanned(source: Path, target: Path, name: str = name, move: Callable[..., None] = move) -> None:
            if refused.count(str(target)) == 0:
                refused.append(str(target))
                raise PermissionError(13, "The process cannot access the file")
            move(source, target)

        monkeypatch.setattr(os, name, scanned)
    monkeypatch.setattr(atomic, "sys", SimpleNamespace(platform="win32"))
    made = merged(*larger, tmp_path / "made")
    assert str(made.path) in refused
    assert base_digest(made.path) == made.digest
