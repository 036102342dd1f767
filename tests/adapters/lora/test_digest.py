"""Digests are an identity for ever: fixed values, what changes them, and a cache that heals."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import AdapterError, BaseModelError
from adapters.files.jsonfile import canonical_json
from adapters.lora.digest import MAX_ADAPTER_BYTES, adapter_digest, base_digest


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_the_canonical_form_never_changes() -> None:
    value = {"b": [1.0, 1e-6, 1e22, True, None, -0.5], "a": "Å\n", "10": {}, "9": 2**60}
    assert canonical_json(value) == (
        rb'{"10":{},"9":1152921504606846976,"a":"\u00c5\n","b":[1,1e-06,1e+22,true,null,-0.5]}'
    )


def test_an_adapters_digest_never_changes(make_adapter: Callable[..., Path]) -> None:
    folder = make_adapter()
    (folder / "adapter_model.safetensors").write_bytes(b"fixed bytes")
    config = (
        b'{"alpha_pattern":[],"exclude_modules":[],"layers_to_transform":null,"lora_alpha":8,"peft_type":"LORA",'
        b'"r":4,"rank_pattern":[],"target_modules":["q_proj","v_proj"],"use_rslora":false}'
    )
    text = f"oneseek-adapter-v1\nconfig {sha(config)}\nweights {sha(b'fixed bytes')}\n"
    assert adapter_digest(folder) == f"sha256:{sha(text.encode())}"
    assert adapter_digest(folder) == "sha256:8552ce5b8cd0ed3cbfe1717760ea7ada5afab22ad476b9e1f8d69459c98f4f59"


def test_a_bases_digest_never_changes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": 64, "rope_theta": 10000.0, "_name_or_path": "x"}')
    (tmp_path / "tokenizer.json").write_bytes(b"tokens")
    shards = {str(number): f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    for number, name in shards.items():
        (tmp_path / name).write_bytes(f"shard {number}".encode())
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    config = b'{"rope_theta":10000,"vocab_size":64}'
    lines = [
        f"config {sha(config)}",
        f"tokenizer {sha(b'tokens')}",
        f"weights {sha(b'shard 1')}",
        f"weights {sha(b'shard 2')}",
    ]
    text = "\n".join(["oneseek-base-v1", *lines, ""])
    assert base_digest(tmp_path) == f"sha256:{sha(text.encode())}"
    assert base_digest(tmp_path) == "sha256:375de7ed0ca7266689e599072fba32d6dcd597ac52182f9a443618a54665c2c5"
    # A GPT-SW3 has a SentencePiece model instead, which counts if there is no tokenizer.json.
    (tmp_path / "spiece.model").write_bytes(b"other tokens")
    assert base_digest(tmp_path) == f"sha256:{sha(text.encode())}"
    (tmp_path / "tokenizer.json").unlink()
    assert (
        base_digest(tmp_path) == f"sha256:{sha(text.replace(sha(b'tokens'), sha(b'other tokens')).encode())}"
    )


@pytest.mark.parametrize(
    "config",
    [
        {"lora_dropout": 0.1},
        {"base_model_name_or_path": "elsewhere", "peft_version": "9"},
        {"target_modules": ["v_proj", "q_proj"]},
        {"lora_alpha": 8.0},
        {"rank_pattern": None, "use_rslora": None},
    ],
)
def test_what_does_not_change_the_result_does_not_change_the_digest(
    config: Mapping[str, Any], make_adapter: Callable[..., Path]
) -> None:
    assert adapter_digest(make_adapter("a")) == adapter_digest(make_adapter("b", config=config))


@pytest.mark.parametrize(
    "config",
    [
        {"lora_alpha": 9},
        {"use_rslora": True},
        {"alpha_pattern": {"q_proj": 4}},
        {"rank_pattern": {"q_proj": 4}},
        {"layers_to_transform": [0, 1]},
        {"target_modules": ["q_proj"]},
        {"exclude_modules": ["layers.0.self_attn.q_proj"]},
    ],
)
def test_what_changes_the_result_changes_the_digest(
    config: Mapping[str, Any], make_adapter: Callable[..., Path]
) -> None:
    assert adapter_digest(make_adapter("a")) != adapter_digest(make_adapter("b", config=config))


def test_the_order_of_patterns_counts_since_the_first_wins(make_adapter: Callable[..., Path]) -> None:
    one, other = {"q_proj": 4, r".*\.q_proj": 2}, {r".*\.q_proj": 2, "q_proj": 4}
    first, second = (make_adapter(str(i), config={"alpha_pattern": p}) for i, p in enumerate((one, other)))
    assert adapter_digest(first) != adapter_digest(second)


def test_a_byte_of_the_weights_changes_the_digest(make_adapter: Callable[..., Path]) -> None:
    folder = make_adapter()
    before = adapter_digest(folder)
    with (folder / "adapter_model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    assert adapter_digest(folder) != before


def test_a_whole_model_is_no_adapter(make_adapter: Callable[..., Path]) -> None:
    folder = make_adapter()
    with (folder / "adapter_model.safetensors").open("r+b") as file:
        file.truncate(9 << 30)
    with pytest.raises(AdapterError, match=str(MAX_ADAPTER_BYTES)):
        adapter_digest(folder)


def test_a_base_without_a_part_is_refused(make_base: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"AutoTokenizer") as caught:
        base_digest(make_base(tmp_path / "a", tokenizer=False))
    assert caught.value.path.name == "tokenizer.json"
    with pytest.raises(BaseModelError, match=r"\.safetensors"):
        base_digest(make_base(tmp_path / "b", weights=False))


def entries(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.json"))


def test_the_cache_spares_reading(make_base: Callable[..., Path], tmp_path: Path) -> None:
    base, cache = make_base(tmp_path / "base"), tmp_path / "cache"
    first = base_digest(base, cache)
    assert first == base_digest(base)
    assert len(entries(cache)) == 2
    for entry in entries(cache):
        fields = json.loads(entry.read_text())
        entry.write_text(json.dumps({**fields, "sha256": "0" * 64}))
    assert base_digest(base, cache) != first, "the cache was not used"


def test_a_file_that_changes_while_it_is_read_has_no_digest(
    make_base: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, real = make_base(tmp_path / "base"), hashlib.file_digest

    def slow(file: Any, name: str) -> Any:
        found = real(file, name)
        with (base / "model.safetensors").open("ab") as other:
            other.write(b"more")
        return found

    monkeypatch.setattr(hashlib, "file_digest", slow)
    with pytest.raises(BaseModelError) as caught:
        base_digest(base, tmp_path / "cache")
    assert caught.value.path == base / "model.safetensors"
    assert caught.value.__cause__ is None


def test_the_cache_tells_files_apart(make_base: Callable[..., Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one, other = (make_base(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    for base in (one, other):
        os.utime(base / "model.safetensors", ns=(0, 0))
    assert base_digest(one, cache) != base_digest(other, cache)


def test_a_rewrite_that_keeps_size_and_time_is_seen(make_base: Callable[..., Path], tmp_path: Path) -> None:
    base, cache = make_base(tmp_path / "base", seed=1), tmp_path / "cache"
    file = base / "model.safetensors"
    before, times = base_digest(base, cache), file.stat().st_mtime_ns
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.write_bytes(changed)
    os.utime(file, ns=(times, times))
    assert base_digest(base, cache) != before


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"sha256": "short"}', b"\xff", b"null"])
def test_a_torn_cache_heals(torn: bytes, make_base: Callable[..., Path], tmp_path: Path) -> None:
    base, cache = make_base(tmp_path / "base"), tmp_path / "cache"
    expected = base_digest(base, cache)
    whole = [entry.read_bytes() for entry in entries(cache)]
    for entry in entries(cache):
        entry.write_bytes(torn)
    assert base_digest(base, cache) == expected
    assert [entry.read_bytes() for entry in entries(cache)] == whole


def test_a_cache_that_cannot_be_written_costs_only_time(
    make_base: Callable[..., Path], tmp_path: Path
) -> None:
    base = make_base(tmp_path / "base")
    (tmp_path / "cache").write_text("a file, not a folder")
    assert base_digest(base, tmp_path / "cache") == base_digest(base)


KILLED = """
import os, signal, sys
from pathlib import Path
from adapters.lora import digest
spot = sys.argv[3]
real = getattr(os, spot) if hasattr(os, spot) else None
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
if spot == "fsync":
    os.fsync = die
else:
    Path.replace = die
digest.base_digest(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("spot", ["fsync", "rename"])
def test_a_kill_while_the_cache_is_written_leaves_it_valid(
    spot: str, make_base: Callable[..., Path], tmp_path: Path
) -> None:
    base, cache = make_base(tmp_path / "base"), tmp_path / "cache"
    cache.mkdir()
    command = [sys.executable, "-c", KILLED, str(base), str(cache), spot]
    done = subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    assert done.returncode == -signal.SIGKILL
    assert list(cache.iterdir()), "it was killed before it wrote"
    assert entries(cache) == []
    assert base_digest(base, cache) == base_digest(base)
    assert len(entries(cache)) == 2
