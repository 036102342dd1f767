"""Convert one adapter file to a folder in PEFT format: a .pth or .safetensors file of an older OneSeek
installation, or PEFT's own .bin.

A child process, `adapters.pth.unpickle`, opens and checks the file; this module sets its limits. Neither that
module nor torch is imported here. `adapters.pth.beside` reads the files that lie next to the adapter file.
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
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adapters import names
from adapters.errors import AdapterError, RegistryError, format_value
from adapters.files.jsonfile import write_object
from adapters.files.regular import open_regular
from adapters.lora.config import CONFIG_FILE
from adapters.lora.families import LoraFamily, family_of_tensors
from adapters.lora.manifest import MANIFEST_FILE
from adapters.lora.tensorfile import WEIGHTS_FILE, TensorFile, unknown_tensor
from adapters.numerals import parse_number
from adapters.pth.beside import Beside, refuse_variants_in, values
from adapters.pth.names import NAMES

DEFAULT_ALPHA = 32.0
"""The lora_alpha that older OneSeek installations trained with. It is used if a .pth file does not
state one.
"""
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "HOME", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|lm_head|wte)\.(?:[A-Za-z0-9_]+\.)*weight\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionLimits:
    """Limits for converting one file. If a file exceeds a limit, it is refused and nothing changes."""

    file_bytes: int = 4 << 30
    pickle_bytes: int = 16 << 20
    """Maximum number of bytes of the pickle inside the file. The pickle names the tensors; their values are
    stored outside it.
    """
    tensors: int = 20_000
    tensor_bytes: int = 4 << 30
    """Maximum number of bytes of all tensors in the file together."""
    memory_bytes: int = 2 << 30
    """Maximum number of bytes of memory for the conversion, in addition to torch and three times the file's
    size.
    """
    seconds: int = 600


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """A folder in PEFT format that was converted from an adapter file, with its names, notes and warnings."""

    folder: Path
    name: names.FolderName
    tells_version: bool
    notes: Mapping[str, Any]
    """Fields to write to oneseek.json: the origin of the adapter, and facts about its training from the .json
    file.
    """
    warnings: tuple[str, ...] = field(default=())


def convert_file(
    file: Path, folder: Path, *, alpha: float | None = None, limits: ConversionLimits | None = None
) -> ConversionResult:
    """Convert the LoRA in `file` to PEFT format in the new folder `folder`.

    `alpha` replaces the lora_alpha that the files state. Raises `AdapterError` if the file is not a LoRA,
    tries to load code, or exceeds `limits`. Raises `RegistryError` if torch is not installed.
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
    # Keep the file's order: the first pattern that matches wins.
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
    """Return the fields of adapter_config.json for a pickle without that file. They come from the shapes of
    its tensors, the settings in the pickle, and the .json file about the training.
    """
    family, settings = NAMES[found["family"]].family, [beside.said, found["settings"]]
    refuse_variants_in(file, settings)
    ranks = {(int(layer), str(module)): int(rank) for layer, module, rank in found["modules"]}
    if alpha is None:
        alpha = _number(settings, "lora_alpha", "alpha")
    if alpha is None:
        alpha = DEFAULT_ALPHA
        warnings.append(
            f"neither {file.name} nor a .json file beside it states lora_alpha, so {alpha:g} is used. If the "
            "adapter was trained with another value, import it with --alpha"
        )
    _check_alpha(file, alpha)
    _check_rank(file, settings, ranks, family, warnings)
    return _config(ranks, alpha, settings, family)


def _check_alpha(file: Path, alpha: float) -> None:
    if not math.isfinite(alpha):
        raise AdapterError(
            file,
            "the LoRA scale alpha must be a finite number",
            "Give the right value with --alpha.",
            field="lora_alpha",
            value=alpha,
        )


def _refuse_left(file: Path, left: Sequence[str], beside: Beside, family: LoraFamily) -> None:
    """Raise `AdapterError` if the conversion would lose tensors that belong to the adapter. `left` names the
    tensors that are not LoRA weights.

    If the file holds a whole model's state, its frozen base weights may be left out. If there is an
    adapter_config.json, nothing may be left out, because PEFT saves only trained weights.
    """
    if left and (beside.peft is not None or all(_EMBEDDING.search(name) for name in left)):
        raise unknown_tensor(file, left[0], family)


def _hash(file: Path, limits: ConversionLimits) -> str:
    if file.is_dir():
        remedy = f"Name the .pth file in it. To add a folder in PEFT format: oneseek adapters add {file}"
        raise AdapterError(file, "the path is a folder, but must be a file", remedy)
    if file.name == WEIGHTS_FILE and (file.parent / CONFIG_FILE).is_file() and _has_peft_names(file, limits):
        raise AdapterError(
            file,
            "the file is in PEFT format already and needs no conversion",
            f"Add its folder: oneseek adapters add {file.parent}",
        )
    try:
        size = file.stat().st_size
        if size > limits.file_bytes:
            reason = f"the file has {size} bytes, more than the {limits.file_bytes} that an adapter may have"
            raise AdapterError(file, f"{reason}, so it looks like a whole model, not an adapter", WHOLE_MODEL)
        with open_regular(file) as opened:
            return f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
    except OSError as problem:
        reason = f"the file cannot be read ({problem.strerror})"
        raise AdapterError(file, reason, "Check that the file exists and that you may read it.") from problem


def _has_peft_names(file: Path, limits: ConversionLimits) -> bool:
    """True if the file has LoRA matrices under the names that PEFT gives them, or if it cannot be read."""
    try:
        with TensorFile.open(file.parent, limits.tensor_bytes) as opened:
            stored = [tensor.name for tensor in opened.tensors]
    except AdapterError:
        return True
    family = family_of_tensors(stored)
    return any(family.factor(name) is not None for name in stored)


WHOLE_MODEL = (
    "To serve a whole model as the base model, save it with transformers' save_pretrained under "
    "models/oneseek-7b-zero."
)


def is_safetensors(file: Path) -> bool:
    """True if the file's name ends in .safetensors, a format that cannot hold code."""
    return file.suffix.lower() == ".safetensors"


def torch_is_installed() -> bool:
    """True if torch is installed. Converting a file needs torch."""
    return importlib.util.find_spec("torch") is not None


def _unpickled(file: Path, folder: Path, limits: ConversionLimits) -> dict[str, Any]:
    """Convert `file` in a child process, which writes the weights into `folder`. Return the process's JSON
    result. Raises `AdapterError` if the process refuses the file or fails, and `RegistryError` if torch is
    not installed.
    """
    if not torch_is_installed():
        raise RegistryError(
            f"Reading {file.name} needs torch, which is not installed. Run pip install 'oneseek[train]', "
            "or import the file on another machine and copy the folder that `oneseek adapters export` makes."
        )
    # A foreign file must not see keys and tokens in the environment.
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
        raise AdapterError(
            file, f"the conversion took more than {limits.seconds} seconds and was stopped", _SAVE_AGAIN
        ) from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        said = format_value(" ".join(last))
        reason = f"the file could not be converted: the process ended with code {done.returncode}: {said}"
        raise AdapterError(file, reason, _SAVE_AGAIN) from None
    if "refused" in answer:
        raise AdapterError(file, answer["refused"]["reason"], answer["refused"]["remedy"])
    return answer


_SAVE_AGAIN = "Where the adapter was trained, save only the adapter, with PEFT's save_pretrained."


def _config(
    ranks: Mapping[tuple[int, str], int],
    alpha: float,
    settings: Sequence[Mapping[str, Any]],
    family: LoraFamily,
) -> dict[str, Any]:
    """Return the fields of adapter_config.json for a LoRA with these `ranks`, given by layer and module."""
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
        warnings.append(f"the files state rank {said:g}, but {file.name} holds rank {held}, which is used")
    said_targets = next(
        (value for value in values(settings, "target_modules") if isinstance(value, list)), None
    )
    targets = {family.target(module).path.rpartition(".")[2] for _, module in ranks}
    known = {target.path.rpartition(".")[2] for target in family.targets}
    if said_targets is not None and not targets >= (said := known.intersection(said_targets)):
        missing = ", ".join(sorted(said - targets))
        raise AdapterError(
            file, f"the training also updated {missing}, but the file holds no weights for that", _SAVE_AGAIN
        )


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
    """Return the first number among the values of the fields `wanted`, also one that is written as text, such
    as "16".
    """
    for value in values(documents, *wanted):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        if isinstance(value, str):
            with suppress(ValueError):
                return parse_number(value)
    return None


def _text(documents: Sequence[Mapping[str, Any]], *wanted: str) -> str | None:
    return next((value for value in values(documents, *wanted) if isinstance(value, str)), None)
