"""Digests: the identity of a base or an adapter, everywhere below the HTTP surface. The format never changes.

Each digest is `sha256:` and the 64 hex digits of the SHA-256 of a short ASCII text. An adapter's is

    oneseek-adapter-v1
    config <hex>
    weights <hex>

with a line feed after every line. `config` is the SHA-256 of the fields of adapter_config.json that change
the result (`LoraConfig.canonical`), in the canonical JSON of `adapters.files.jsonfile`; `weights` is that of
the bytes of adapter_model.safetensors. A base's is

    oneseek-base-v1
    config <hex>
    tokenizer <hex>
    weights <hex>

with one `weights` line for each safetensors file, in the order of `adapters.files.weightfiles`. `config` is
that of config.json in canonical JSON without `_name_or_path` and `transformers_version`, which say who
saved it; `tokenizer` is that of the bytes of tokenizer.json, or of spiece.model if a GPT-SW3 has no
tokenizer.json. `sha256sum` therefore checks every part by hand.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError, BaseModelError, FileRefusedError
from adapters.files.hashes import HashCache, file_state
from adapters.files.jsonfile import canonical_json, read_object, write_object
from adapters.files.regular import open_regular
from adapters.files.tokenizerfile import TOKENIZER_FILE, tokenizer_file
from adapters.files.weightfiles import COMPLETE, MAX_BASE_JSON_BYTES, weight_files
from adapters.lora.config import LoraConfig
from adapters.lora.tensorfile import WEIGHTS_FILE, weights_path

MAX_ADAPTER_BYTES = 8 << 30
_WHO_SAVED_IT = ("_name_or_path", "transformers_version")


def adapter_digest(folder: Path, hashes: HashCache | None = None) -> str:
    """Return the digest `sha256:…` of the PEFT LoRA in `folder`. Weights that `hashes` know are not read
    again.

    Raises `AdapterError` if its config is not a plain LoRA's, or its weights are missing or too large.
    """
    config = LoraConfig.read(folder)
    weights = weights_path(folder)
    if weights.stat().st_size > MAX_ADAPTER_BYTES:
        raise AdapterError(
            weights,
            f"the weight file is larger than {MAX_ADAPTER_BYTES} bytes",
            "Check that the file is an adapter and not a whole model.",
        )
    return digest_of(config, _weights_hash(weights, hashes))


def known_digest(folder: Path, config: LoraConfig, hashes: HashCache) -> str | None:
    """Return the adapter's digest if `hashes` know its weights. None if they would have to be read."""
    found = hashes.get(folder / WEIGHTS_FILE)
    return digest_of(config, found) if found is not None else None


def digest_of(config: LoraConfig, weights: str) -> str:
    """Return the digest of an adapter with this config, whose weights have the SHA-256 `weights` in hex."""
    config_hex = hashlib.sha256(canonical_json(config.canonical)).hexdigest()
    return _digest("oneseek-adapter-v1", ("config", config_hex), ("weights", weights))


def _weights_hash(path: Path, hashes: HashCache | None) -> str:
    found = hashes.get(path) if hashes is not None else None
    if found is not None:
        return found
    state = file_state(path.stat()) if hashes is not None else ()
    found = _hash(path, AdapterError)
    if hashes is not None and file_state(path.stat()) == state:
        hashes.put(path, state, found)
    return found


def base_digest(folder: Path, cache_dir: Path | None = None) -> str:
    """Return the digest `sha256:…` of the base in `folder`.

    Reads every byte once, several files at a time. With `cache_dir`, a file with the path, size and times of
    an earlier call is not read again. If the cache is damaged or not writable, files are read again. Raises
    `BaseModelError` if a file is missing or changes while it is read.
    """
    config = read_object(folder / "config.json", MAX_BASE_JSON_BYTES, BaseModelError)
    kept = {key: value for key, value in config.items() if key not in _WHO_SAVED_IT}
    tokenizer_path = tokenizer_file(folder)
    if tokenizer_path is None:
        raise BaseModelError(
            folder / TOKENIZER_FILE,
            "the tokenizer file does not exist",
            "Save it with transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(folder).",
        )
    files = (tokenizer_path, *weight_files(folder))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        tokenizer, *weights = pool.map(partial(_cached_hash, cache_dir), files)
    return _digest(
        "oneseek-base-v1",
        ("config", hashlib.sha256(canonical_json(kept)).hexdigest()),
        ("tokenizer", tokenizer),
        *(("weights", weight) for weight in weights),
    )


def file_digest(path: Path, cache_dir: Path | None = None) -> str:
    """Return the SHA-256 of a file's bytes in hex. `cache_dir` is used as in `base_digest`.

    Raises `BaseModelError` if the file cannot be read, or changes meanwhile.
    """
    return _cached_hash(cache_dir, path)


def _digest(version: str, *parts: tuple[str, str]) -> str:
    text = "".join(
        f"{line}\n" for line in (version, *(f"{name} {hexadecimal}" for name, hexadecimal in parts))
    )
    return f"sha256:{hashlib.sha256(text.encode('ascii')).hexdigest()}"


def _hash(path: Path, error: type[FileRefusedError]) -> str:
    """Return the SHA-256 of the file's bytes in hex. Refuse a file that changes meanwhile."""
    try:
        with open_regular(path) as file:
            before = os.fstat(file.fileno())
            found = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(file.fileno())
    except OSError as problem:
        raise error(
            path,
            f"the file cannot be read ({problem.strerror})",
            "Check that the file exists and is readable.",
        ) from problem
    if _stamp(before) != _stamp(after):
        raise error(
            path, "the file changed while it was read", "Wait until its writer has finished, then try again."
        )
    return found


def _cached_hash(cache_dir: Path | None, path: Path) -> str:
    if cache_dir is None:
        return _hash(path, BaseModelError)
    try:
        key = {"path": str(path.resolve(strict=True)), **_stamp(path.stat())}
    except OSError as problem:
        raise BaseModelError(path, f"the file cannot be read ({problem.strerror})", COMPLETE) from problem
    entry = cache_dir / f"{hashlib.sha256(str(key['path']).encode()).hexdigest()[:32]}.json"
    known = _entry(entry, key)
    if known is not None:
        return known
    found = _hash(path, BaseModelError)
    try:
        write_object(entry, {**key, "sha256": found})
    except OSError:
        return found
    return found


def _entry(path: Path, key: Mapping[str, Any]) -> str | None:
    """Return the hash in a cache entry for `key`. None if it is absent, torn, or for an older state of the
    file.
    """
    try:
        entry = read_object(path, MAX_BASE_JSON_BYTES, BaseModelError)
    except BaseModelError:
        return None
    found = entry.pop("sha256", None)
    whole = isinstance(found, str) and len(found) == 64 and set(found) <= set("0123456789abcdef")
    return found if whole and entry == key else None


def _stamp(status: os.stat_result) -> dict[str, int]:
    """Return what changes when a file does. ctime shows a rewrite that kept size and mtime, as
    rsync's can.
    """
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}
