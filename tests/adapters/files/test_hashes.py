"""Hashes are remembered by what changes with a file, and a damaged memory costs time alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.errors import AdapterError
from adapters.files.hashes import HashCache, file_state, hash_file
from adapters.lora import digest as module
from adapters.lora.digest import adapter_digest
from adapters.lora.manifest import read_manifest

WEIGHTS = "adapter_model.safetensors"


def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose bytes are hashed from now on."""
    seen: list[str] = []
    real = hashlib.file_digest

    def spy(file: object, name: str) -> object:
        seen.append(name)
        return real(file, name)  # pyright: ignore[reportArgumentType] # passed on as it came

    monkeypatch.setattr(module.hashlib, "file_digest", spy)
    return seen


def test_a_file_is_hashed_once_and_again_after_any_change(
    make_adapter: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = make_adapter("a"), hashed(monkeypatch)
    path = hash_file(tmp_path / "home")
    first = adapter_digest(folder, HashCache(path))
    assert [adapter_digest(folder, HashCache(path)) for _ in range(2)] == [first] * 2
    assert len(seen) == 1
    weights = folder / WEIGHTS
    data, status = weights.read_bytes(), weights.stat()
    weights.unlink()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert adapter_digest(folder, HashCache(path)) != first
    assert len(seen) == 2


def test_a_recorded_digest_is_taken_until_the_weights_are_hashed(
    make_adapter: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "sha256:" + "1" * 64
    folder, seen = make_adapter("b", manifest={"digest": wrong}), hashed(monkeypatch)
    hashes = HashCache(hash_file(tmp_path / "home"))
    assert read_manifest(folder, hashes=hashes).digest == wrong
    assert seen == []
    adapter_digest(folder, hashes)
    with pytest.raises(AdapterError, match="digest"):
        read_manifest(folder, hashes=hashes)


def test_a_torn_or_foreign_line_counts_as_absent(tmp_path: Path) -> None:
    path, file = tmp_path / "cache" / "hashes.jsonl", tmp_path / "weights"
    file.write_bytes(b"weights")
    HashCache(path).put(file, file_state(file.stat()), "a" * 64)
    whole = path.read_bytes()
    path.write_bytes(whole + b'\n{"path": 3}\nnull\n[]\n\xff\xfe\n' + whole.strip()[:-9])
    again = HashCache(path)
    assert again.get(file) == "a" * 64
    other = tmp_path / "other"
    other.write_bytes(b"other")
    again.put(other, file_state(other.stat()), "b" * 64)
    assert HashCache(path).get(other) == "b" * 64
    assert HashCache(path).get(tmp_path / "nothing") is None


def test_a_cache_that_cannot_be_written_still_remembers(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the folder's place")
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    hashes = HashCache(tmp_path / "cache" / "hashes.jsonl")
    hashes.put(file, file_state(file.stat()), "a" * 64)
    assert hashes.get(file) == "a" * 64
