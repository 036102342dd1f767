"""From a .pth file of an existing installation to a PEFT folder; the pickle is opened in another process.

What that process may do is in `adapters.pth.unpickle`; it is not imported here, and nor is torch. Here
are its limits, the files around it, and what is taken from the .json beside the .pth.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adapters import names
from adapters.errors import AdapterError, RegistryError, format_value
from adapters.files.jsonfile import read_object, write_object
from adapters.files.regular import open_regular
from adapters.lora.config import CONFIG_FILE
from adapters.lora.families import LLAMA

FAMILY = LLAMA
"""Existing installations have Mistral and Llama bases alone."""
DEFAULT_ALPHA = 32.0
"""What the training of existing installations used, for a .pth that does not say."""
_MAX_NOTES_BYTES = 256 << 10
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "HOME", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR")
_GENERIC = ("adapter", "adapter_model", "pytorch_model", "model", "weights", "lora")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionLimits:
    """What a conversion may take. Past one of them it ends, and nothing has changed."""

    file_bytes: int = 4 << 30
    pickle_bytes: int = 16 << 20
    """Of the pickle inside the file, which names the tensors and holds none of their numbers."""
    tensors: int = 20_000
    tensor_bytes: int = 4 << 30
    """Of all tensors together."""
    memory_bytes: int = 2 << 30
    """Beside torch itself and the file."""
    seconds: int = 600


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """A PEFT folder made from a .pth, and what is known of it."""

    folder: Path
    name: names.FolderName
    tells_version: bool
    notes: Mapping[str, Any]
    """Fields for oneseek.json: where it came from, and what its .json says of its making."""
    warnings: tuple[str, ...] = field(default=())


def convert_file(
    file: Path, folder: Path, *, alpha: float | None = None, limits: ConversionLimits | None = None
) -> ConversionResult:
    """Make the LoRA in `file` a PEFT folder at `folder`, which is made.

    `alpha` goes before what the files say. Raises `AdapterError` for a file that is no LoRA, that asks to run
    code, or that goes beyond `limits`; `RegistryError` where torch is not installed.
    """
    limits = limits or ConversionLimits()
    digest = _hash(file, limits)
    beside = file.with_suffix(".json")
    said = read_object(beside, _MAX_NOTES_BYTES, AdapterError) if beside.is_file() else {}
    folder.mkdir(parents=True)
    found = _unpickled(file, folder, limits)
    warnings = list[str](found["warnings"])
    settings = [said, found["settings"]]
    ranks = {(int(layer), str(module)): int(rank) for layer, module, rank in found["modules"]}
    if alpha is None:
        alpha = _number(settings, "lora_alpha", "alpha")
    if alpha is None:
        alpha = DEFAULT_ALPHA
        warnings.append(
            f"neither {file.name} nor a .json beside it says lora_alpha: {alpha:g} is taken. If it was "
            "trained with another, import it with --alpha"
        )
    if not math.isfinite(alpha):
        raise AdapterError(
            file, "an alpha is a finite number", "Import it with --alpha.", field="lora_alpha", value=alpha
        )
    _check_rank(file, settings, ranks, warnings)
    write_object(folder / CONFIG_FILE, _config(ranks, alpha, settings))
    name = file.resolve().parent.name if file.stem.lower() in _GENERIC else file.stem
    return ConversionResult(
        folder=folder,
        name=_named(name, said),
        tells_version=names.tells_version(name),
        notes=_notes(file, digest, said),
        warnings=tuple(warnings),
    )


def _hash(file: Path, limits: ConversionLimits) -> str:
    if file.is_dir():
        remedy = f"Name the .pth in it; a folder in PEFT layout is added with: oneseek adapters add {file}"
        raise AdapterError(file, "is a folder", remedy)
    try:
        size = file.stat().st_size
        if size > limits.file_bytes:
            reason = f"has {size} bytes, more than the {limits.file_bytes} of the largest adapter"
            raise AdapterError(file, f"{reason}: it looks like a whole model", WHOLE_MODEL)
        with open_regular(file) as opened:
            return f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
    except OSError as problem:
        reason = f"cannot be read ({problem.strerror})"
        raise AdapterError(file, reason, "Check the path and who may read it.") from problem


WHOLE_MODEL = (
    "A whole model is a base: save it with transformers' save_pretrained under models/oneseek-7b-zero, "
    "and it is served as that."
)


def _unpickled(file: Path, folder: Path, limits: ConversionLimits) -> dict[str, Any]:
    """What the child process says; it has written the weights."""
    if importlib.util.find_spec("torch") is None:
        raise RegistryError(
            f"Reading {file.name} takes torch, which is not installed: pip install 'oneseek[train]', "
            "or import it on another machine and bring the folder that `oneseek adapters export` makes."
        )
    # Keys and tokens in the environment are none of a foreign file's business.
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    command = [sys.executable, "-m", "adapters.pth.unpickle", str(file.resolve()), str(folder.resolve())]
    try:
        done = subprocess.run(
            [*command, json.dumps(asdict(limits))],
            cwd=Path(__file__).resolve().parents[2],
            env={**environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUTF8": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limits.seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AdapterError(file, f"took more than {limits.seconds} seconds", _SAVE_AGAIN) from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        said = format_value(" ".join(last))
        reason = f"could not be converted: the process ended with {done.returncode}, saying {said}"
        raise AdapterError(file, reason, _SAVE_AGAIN) from None
    if "refused" in answer:
        raise AdapterError(file, answer["refused"]["reason"], answer["refused"]["remedy"])
    return answer


_SAVE_AGAIN = "Save the adapter alone, with PEFT's save_pretrained, where it was trained."


def _config(
    ranks: Mapping[tuple[int, str], int], alpha: float, settings: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The fields of adapter_config.json for modules of these ranks."""
    layers, modules = {layer for layer, _ in ranks}, {module for _, module in ranks}
    everywhere = layers == set(range(len(layers))) and len(ranks) == len(layers) * len(modules)
    ((rank, _),) = Counter(ranks.values()).most_common(1)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": _text(settings, "base_model_name_or_path", "base_model"),
        "r": rank,
        "rank_pattern": {FAMILY.module_name(*key): found for key, found in ranks.items() if found != rank},
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "use_rslora": any(value is True for value in _values(settings, "use_rslora")),
        "target_modules": sorted(modules)
        if everywhere
        else [FAMILY.module_name(*key) for key in sorted(ranks)],
        "bias": "none",
        "inference_mode": True,
    }


def _check_rank(
    file: Path,
    settings: Sequence[Mapping[str, Any]],
    ranks: Mapping[tuple[int, str], int],
    warnings: list[str],
) -> None:
    said = _number(settings, "lora_rank", "r", "rank")
    held = sorted(set(ranks.values()))
    if said is not None and held != [said]:
        warnings.append(f"the rank is said to be {said:g}; {file.name} holds {held}, which is what counts")
    said_targets = next(
        (value for value in _values(settings, "target_modules") if isinstance(value, list)), None
    )
    targets = {module for _, module in ranks}
    if said_targets is not None and not targets >= set(said_targets).intersection(FAMILY.names):
        missing = ", ".join(sorted(set(said_targets).intersection(FAMILY.names) - targets))
        raise AdapterError(file, f"its training updated {missing} too, which it does not hold", _SAVE_AGAIN)


def _named(name: str, said: Mapping[str, Any]) -> names.FolderName:
    """The names that the file's name tells; its language, where that tells none, from its .json."""
    try:
        told = names.FolderName.read(name)
    except ValueError:
        told = names.FolderName("imported", "v1", None)
    language = told.language
    if language is None and isinstance(said.get("language"), str) and len(said["language"]) == 2:
        language = names.language(said["language"])
    return names.FolderName(told.alias, told.version, language)


def _notes(file: Path, digest: str, said: Mapping[str, Any]) -> dict[str, Any]:
    origin: dict[str, Any] = {"file": file.name, "digest": digest}
    if said:
        origin["json"] = dict(said)
    found: dict[str, Any] = {"origin": origin}
    metrics = said.get("metrics")
    if isinstance(metrics, dict):
        found["metrics"] = {k: v for k, v in metrics.items() if isinstance(v, int | float | str)}
    for name in ("created_at", "created", "timestamp"):
        if isinstance(said.get(name), str):
            found["created"] = said[name][:64]
    return found


def _values(documents: Sequence[Mapping[str, Any]], *wanted: str) -> Iterator[object]:
    """The values of fields called one of `wanted`, the outermost first, earlier documents first."""
    for document in documents:
        waiting = deque([(document, 0)])
        while waiting:
            fields, depth = waiting.popleft()
            yield from (fields[name] for name in wanted if fields.get(name) is not None)
            if depth < 3:
                waiting.extend((value, depth + 1) for value in fields.values() if isinstance(value, dict))


def _number(documents: Sequence[Mapping[str, Any]], *wanted: str) -> float | None:
    found = (value for value in _values(documents, *wanted) if type(value) in (int, float))
    return next((value for value in found if isinstance(value, int | float)), None)


def _text(documents: Sequence[Mapping[str, Any]], *wanted: str) -> str | None:
    return next((value for value in _values(documents, *wanted) if isinstance(value, str)), None)
