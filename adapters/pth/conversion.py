"""From one file to a PEFT folder: an existing installation's .pth or .safetensors, or PEFT's own .bin.

The file is opened in another process; what that may do is in `adapters.pth.unpickle`, which is not imported
here, and nor is torch. Here are its limits. What the files beside the pickle say is for
`adapters.pth.beside`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adapters import names
from adapters.errors import AdapterError, RegistryError, format_value
from adapters.files.jsonfile import write_object
from adapters.files.regular import open_regular
from adapters.lora.config import CONFIG_FILE
from adapters.lora.families import LoraFamily
from adapters.lora.manifest import MANIFEST_FILE
from adapters.lora.tensorfile import WEIGHTS_FILE, unknown_tensor
from adapters.pth.beside import Beside, refuse_variants_in, values
from adapters.pth.names import NAMES

DEFAULT_ALPHA = 32.0
"""What the training of existing installations used, for a .pth that does not say."""
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "HOME", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|lm_head|wte)\.(?:[A-Za-z0-9_]+\.)*weight\Z")


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
    beside = Beside.read(file)
    if alpha is not None:
        _check_alpha(file, alpha)
    folder.mkdir(parents=True)
    found = _unpickled(file, folder, limits)
    _refuse_left(file, list[str](found["left"]), beside, NAMES[found["family"]].family)
    warnings = list[str](found["warnings"])
    if beside.peft is not None:
        fields = {**beside.peft, **({} if alpha is None else {"lora_alpha": _whole(alpha)})}
        write_object(folder / MANIFEST_FILE, beside.manifest_to_keep())
    else:
        fields = _told_config(file, found, beside, alpha, warnings)
    # In the file's order: of several patterns the first that matches wins.
    (folder / CONFIG_FILE).write_text(json.dumps(fields, indent=2), encoding="utf-8", newline="\n")
    return ConversionResult(
        folder=folder,
        name=beside.name(file),
        tells_version=beside.tells_version(file),
        notes=_notes(file, digest, beside.said),
        warnings=tuple(warnings),
    )


def _told_config(
    file: Path, found: Mapping[str, Any], beside: Beside, alpha: float | None, warnings: list[str]
) -> dict[str, Any]:
    """adapter_config.json for a pickle without one, from its shapes and what it and its .json say."""
    family, settings = NAMES[found["family"]].family, [beside.said, found["settings"]]
    refuse_variants_in(file, settings)
    ranks = {(int(layer), str(module)): int(rank) for layer, module, rank in found["modules"]}
    if alpha is None:
        alpha = _number(settings, "lora_alpha", "alpha")
    if alpha is None:
        alpha = DEFAULT_ALPHA
        warnings.append(
            f"neither {file.name} nor a .json beside it says lora_alpha: {alpha:g} is taken. If it was "
            "trained with another, import it with --alpha"
        )
    _check_alpha(file, alpha)
    _check_rank(file, settings, ranks, family, warnings)
    return _config(ranks, alpha, settings, family)


def _check_alpha(file: Path, alpha: float) -> None:
    if not math.isfinite(alpha):
        raise AdapterError(
            file, "an alpha is a finite number", "Import it with --alpha.", field="lora_alpha", value=alpha
        )


def _refuse_left(file: Path, left: Sequence[str], beside: Beside, family: LoraFamily) -> None:
    """Raise `AdapterError` for tensors that belong to the adapter and would be lost.

    The frozen base in a whole model's state is left out. Beside PEFT's config nothing is: PEFT saves what was
    trained, and an embedding or head alone was trained or resized too.
    """
    if left and (beside.peft is not None or all(_EMBEDDING.search(name) for name in left)):
        raise unknown_tensor(file, left[0], family)


def _hash(file: Path, limits: ConversionLimits) -> str:
    if file.is_dir():
        remedy = f"Name the .pth in it; a folder in PEFT layout is added with: oneseek adapters add {file}"
        raise AdapterError(file, "is a folder", remedy)
    if file.name == WEIGHTS_FILE and (file.parent / CONFIG_FILE).is_file():
        raise AdapterError(file, "needs no conversion", f"Add its folder: oneseek adapters add {file.parent}")
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


def is_safetensors(file: Path) -> bool:
    """Whether the file is by its name in safetensors, which hold no code."""
    return file.suffix.lower() == ".safetensors"


def torch_is_installed() -> bool:
    """Whether files can be converted here."""
    return importlib.util.find_spec("torch") is not None


def _unpickled(file: Path, folder: Path, limits: ConversionLimits) -> dict[str, Any]:
    """What the child process says; it has written the weights."""
    if not torch_is_installed():
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
    ranks: Mapping[tuple[int, str], int],
    alpha: float,
    settings: Sequence[Mapping[str, Any]],
    family: LoraFamily,
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
        "rank_pattern": {family.module_name(*key): found for key, found in ranks.items() if found != rank},
        "lora_alpha": _whole(alpha),
        "alpha_pattern": next(
            (value for value in values(settings, "alpha_pattern") if isinstance(value, dict)), {}
        ),
        "use_rslora": any(value is True for value in values(settings, "use_rslora")),
        "target_modules": sorted(modules)
        if everywhere
        else [family.module_name(*key) for key in sorted(ranks)],
        **({"fan_in_fan_out": True} if family.stores_transposed(modules) else {}),
        "bias": "none",
        "inference_mode": True,
    }


def _whole(alpha: float) -> float:
    return int(alpha) if float(alpha).is_integer() else alpha


def _check_rank(
    file: Path,
    settings: Sequence[Mapping[str, Any]],
    ranks: Mapping[tuple[int, str], int],
    family: LoraFamily,
    warnings: list[str],
) -> None:
    said = _number(settings, "lora_rank", "r", "rank")
    held = sorted(set(ranks.values()))
    if said is not None and held != [said]:
        warnings.append(f"the rank is said to be {said:g}; {file.name} holds {held}, which is what counts")
    said_targets = next(
        (value for value in values(settings, "target_modules") if isinstance(value, list)), None
    )
    targets = {family.target(module).path.rpartition(".")[2] for _, module in ranks}
    known = {target.path.rpartition(".")[2] for target in family.targets}
    if said_targets is not None and not targets >= (said := known.intersection(said_targets)):
        missing = ", ".join(sorted(said - targets))
        raise AdapterError(file, f"its training updated {missing} too, which it does not hold", _SAVE_AGAIN)


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


def _number(documents: Sequence[Mapping[str, Any]], *wanted: str) -> float | None:
    found = (value for value in values(documents, *wanted) if type(value) in (int, float))
    return next((value for value in found if isinstance(value, int | float)), None)


def _text(documents: Sequence[Mapping[str, Any]], *wanted: str) -> str | None:
    return next((value for value in values(documents, *wanted) if isinstance(value, str)), None)
