"""Convert the LoRA in one file to PEFT's safetensors: `python -m adapters.pth.unpickle FILE FOLDER LIMITS`.

`adapters.pth.conversion` runs this module in a child process for each file. The process prints one line of
JSON. Three safeguards protect the machine from a hostile file:

- The names that the pickle would load are read without running it, and all must be on a short list.
- torch.load reads the file with weights_only=True, and there is no fallback.
- The memory, time and disk use of the process are limited.
"""

from __future__ import annotations

import contextlib
import json
import pickletools
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.errors import format_value
from adapters.lora.tensorfile import WEIGHTS_FILE
from adapters.pth.conversion import WHOLE_MODEL, ConversionLimits, is_safetensors
from adapters.pth.names import NAMES, WHOLE, family_in

if TYPE_CHECKING:
    import torch

_ALLOWED = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(?:tensor_v2|parameter|parameter_with_state)|torch Size|"
    r"torch (?:Float|Half|BFloat16|Double|Long|Int|Short|Char|Byte|Bool)Storage|torch device|"
    r"torch (?:float32|float16|bfloat16|float64)"
)
"""Matches the "module name" of each object that a pickle of only tensors, numbers and text loads. A file that
loads any other object is refused.
"""
_CALLS = ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX")
"""Pickle opcodes that can create or call objects, and that torch.save never writes. A file that holds one of
them is refused.
"""
_CHANGED = ("lora_magnitude_vector", "lora_embedding", "modules_to_save", "lora_bias", "lora_B.bias")
_RETRAIN = "Train the adapter as a plain LoRA on the projections only."
_SAVE_AGAIN = "Where the adapter was trained, save only the adapter, with PEFT's save_pretrained."
_NO_MEMORY = "the conversion needs more memory than it may use"


class RefusedError(ValueError):
    """The file is refused and not converted. `reason` says why, and `remedy` what the user can do."""

    def __init__(self, reason: str, remedy: str = _SAVE_AGAIN) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Factors:
    """The two LoRA matrices of one module: A with shape [rank, in] and B with shape [out, rank]."""

    a: torch.Tensor
    b: torch.Tensor


def check_archive(file: Path, limits: ConversionLimits) -> None:
    """Check a torch.save file by its zip entries and pickle opcodes, without running or loading anything.
    Raises `RefusedError`.
    """
    if not zipfile.is_zipfile(file):
        reason = "the file is not in the zip format that torch.save writes since torch 1.6"
        raise RefusedError(
            reason,
            "If you trust its author, load the file with torch.load and save it again with torch.save.",
        )
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if len(entries) > limits.tensors + 64:
            raise RefusedError(
                f"the file holds {len(entries)} zip entries, one for each tensor; that is too many for an "
                f"adapter, which may have {limits.tensors} tensors, so the file is not read"
            )
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise RefusedError(
                "the file holds compressed zip entries, which torch.save never writes, so it is not read"
            )
        if sum(entry.file_size for entry in entries) > limits.file_bytes:
            raise RefusedError(
                f"the file unpacks to more than {limits.file_bytes} bytes, the limit for an adapter, so it "
                "is not read",
                WHOLE_MODEL,
            )
        pickles = [entry for entry in entries if entry.filename.lower().endswith(".pkl")]
        if len(pickles) != 1 or not pickles[0].filename.endswith("/data.pkl"):
            raise RefusedError(
                "the file must hold exactly one data.pkl, as every file of torch.save does; it is not read"
            )
        if pickles[0].file_size > limits.pickle_bytes:
            raise RefusedError(
                f"the file's data.pkl, which lists the tensors, has more than {limits.pickle_bytes} bytes, "
                "the limit for an adapter, so the file is not read"
            )
        asked = set(asked_for(archive.read(pickles[0])))
    foreign = sorted(name for name in asked if not _ALLOWED.fullmatch(name))
    if foreign:
        what = ", ".join(format_value(name.replace(" ", ".")) for name in foreign[:4])
        remedy = f"Do not open it with other programs unless you trust its author. {_SAVE_AGAIN}"
        raise RefusedError(
            f"the file is a pickle that asks for {what}, which could run code, so it was not loaded",
            remedy,
        )


def asked_for(data: bytes) -> Iterator[str]:
    """Yield "module name" of every object that the pickle `data` would load, read from its opcodes without
    running it. Raises `RefusedError` if the data is not a pickle.
    """
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "GLOBAL":
                yield str(argument)
            elif opcode.name in _CALLS:
                yield f"{opcode.name} {argument or ''}".strip()
    except ValueError as problem:
        raise RefusedError(
            f"the file is damaged and is not read: the data.pkl in it is not a pickle "
            f"({format_value(str(problem))})"
        ) from problem


def confine(file: Path, limits: ConversionLimits) -> None:
    """Limit the CPU time, memory and file size of this process. Windows has no such limits, so nothing
    happens there.
    """
    if sys.platform == "win32":
        return
    import resource

    used = 0
    with contextlib.suppress(OSError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    written = limits.tensor_bytes + (64 << 20)
    wanted = {
        resource.RLIMIT_CPU: limits.seconds,
        resource.RLIMIT_FSIZE: written,
        resource.RLIMIT_CORE: 0,
    }
    if used:
        wanted[resource.RLIMIT_AS] = used + 3 * file.stat().st_size + limits.memory_bytes
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def tensors_in(document: object) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the only state dict with LoRA weights in a loaded file, however deeply it is nested, and the
    plain settings around it. Raises `RefusedError` if the file holds no such state dict, or several.
    """
    import torch

    found: list[dict[str, torch.Tensor]] = []
    settings: dict[str, Any] = {}

    def look(value: Mapping[Any, Any], depth: int) -> None:
        tensors = {str(key): item for key, item in value.items() if isinstance(item, torch.Tensor)}
        if tensors:
            found.append(tensors)
        for key, item in value.items():
            if isinstance(item, Mapping) and depth < 4:
                plain = _plain_values(item)
                if plain:
                    settings[str(key)] = plain
                look(item, depth + 1)

    if not isinstance(document, Mapping):
        raise RefusedError(
            f"the file holds a {type(document).__name__}, but must hold a state dict: tensors by name"
        )
    settings |= _plain_values(document)
    look(document, 0)
    with_lora = [tensors for tensors in found if any("lora_" in name for name in tensors)]
    if len(with_lora) > 1:
        raise RefusedError(
            "the file holds several sets of LoRA weights", "Save each adapter in a file of its own."
        )
    if not with_lora:
        names = [name for tensors in found for name in tensors]
        if any(WHOLE.fullmatch(name) for name in names):
            raise RefusedError("the file holds a whole model's weights, not an adapter", WHOLE_MODEL)
        held = ", ".join(map(format_value, names[:3])) or "nothing"
        raise RefusedError(f"the file is not an adapter: no tensor in it is a LoRA weight (found: {held})")
    return with_lora[0], settings


def map_factors(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[tuple[int, str], Factors], list[str]]:
    """Return the LoRA matrices A and B of each module, by layer and module, and warnings about tensors that
    are left out. Raises `RefusedError`.
    """
    known = NAMES[family_in(tensors)]
    halves: dict[tuple[int, str], dict[str, torch.Tensor]] = {}
    adapters: set[str] = set()
    left: list[str] = []
    for name, tensor in tensors.items():
        found = known.read(name)
        if found is None:
            if "lora_" in name or any(trace in name for trace in _CHANGED):
                raise RefusedError(
                    f"the file holds the tensor {format_value(name)}, which is not part of a plain LoRA",
                    _RETRAIN,
                )
            left.append(name)
            continue
        adapters.add(found.adapter)
        if found.half in halves.setdefault(found.key, {}):
            place = known.family.module_name(*found.key)
            raise RefusedError(
                f"the file holds lora_{found.half} of {place} twice",
                "Save each adapter in a file of its own.",
            )
        halves[found.key][found.half] = tensor
    if len(adapters) > 1:
        which = ", ".join(sorted(name or "unnamed" for name in adapters))
        raise RefusedError(
            f"the file holds several adapters ({which})", "Save each adapter in a file of its own."
        )
    warnings = (
        [f"{len(left)} tensors of the base model in the file are left out ({format_value(left[0])}…)"]
        if left
        else []
    )
    order = {name: place for place, name in enumerate(known.family.names)}
    keys = sorted(halves, key=lambda key: (key[0], order[key[1]]))
    return {key: _factors(known.family.module_name(*key), halves[key]) for key in keys}, warnings


def _factors(name: str, found: Mapping[str, torch.Tensor]) -> Factors:
    """Return the LoRA matrices A and B of one module, transposed if the file stores them transposed. The
    shapes show this, because the rank is the smaller dimension. Raises `RefusedError` if the shapes do not
    fit.
    """
    if len(found) != 2:
        raise RefusedError(
            f"the file holds only one of the two LoRA matrices of {name}, so the adapter is incomplete and "
            "is not converted"
        )
    a, b = found["A"], found["B"]
    if a.dim() != 2 or b.dim() != 2:
        raise RefusedError(
            f"the LoRA weights of {name} must be matrices, but their shapes are {list(a.shape)} and "
            f"{list(b.shape)}, so the adapter is not converted"
        )
    plain, turned = a.shape[0] == b.shape[1], a.shape[1] == b.shape[0]
    if turned and (not plain or a.shape[1] < a.shape[0]):
        return Factors(a.T, b.T)
    if not plain:
        raise RefusedError(
            f"the LoRA matrices A and B of {name} have different ranks: their shapes are {list(a.shape)} "
            f"and {list(b.shape)}, so the adapter is not converted"
        )
    return Factors(a, b)


def _plain_values(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the entries of `fields` whose values are numbers, strings, or lists of strings and whole
    numbers.
    """
    kinds = (str, int, float, bool)
    found = {str(key): value for key, value in fields.items() if isinstance(value, kinds)}
    lists = {
        str(key): list(value)
        for key, value in fields.items()
        if isinstance(value, list | tuple | set) and all(isinstance(item, str | int) for item in value)
    }
    return {**found, **lists}


def extract_lora(file: Path, folder: Path, limits: ConversionLimits) -> dict[str, Any]:
    """Write the LoRA in `file` to `folder` as PEFT's safetensors. Return its family, modules, settings and
    warnings for JSON. Raises `RefusedError`.
    """
    document = _load(file, limits)
    from safetensors.torch import save_file

    tensors, settings = tensors_in(document)
    if len(tensors) > limits.tensors:
        raise RefusedError(
            f"the file holds {len(tensors)} tensors, more than the {limits.tensors} allowed for an adapter, "
            "so it is not converted"
        )
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size > limits.tensor_bytes:
        raise RefusedError(
            f"the file holds {size} bytes of tensors, more than the {limits.tensor_bytes} allowed for an "
            "adapter, so it is not converted"
        )
    kind = family_in(tensors)
    known = NAMES[kind]
    factors, warnings = map_factors(tensors)
    written: dict[str, torch.Tensor] = {}
    for key, pair in factors.items():
        for half, tensor in (("A", pair.a), ("B", pair.b)):
            name = known.family.module_name(*key)
            written[f"base_model.model.{name}.lora_{half}.weight"] = _stored(tensor, name)
    save_file(written, folder / WEIGHTS_FILE)
    modules = [[layer, module, pair.a.shape[0]] for (layer, module), pair in factors.items()]
    left = [name for name in tensors if known.read(name) is None]
    return {"family": kind, "modules": modules, "settings": settings, "warnings": warnings, "left": left}


def _load(file: Path, limits: ConversionLimits) -> object:
    """Load the contents of `file`: tensors from safetensors, or allowed objects from a pickle. Raises
    `RefusedError`.
    """
    if is_safetensors(file):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except SafetensorError as problem:
            raise RefusedError(
                f"the file is damaged, so its tensors cannot be read ({format_value(str(problem))})"
            ) from problem
    check_archive(file, limits)
    import torch

    release = tuple(int(part) for part in re.findall(r"[0-9]+", torch.__version__)[:2])
    if release < (2, 10):
        reason = f"the file was not loaded, because weights_only can be bypassed in torch {torch.__version__}"
        raise RefusedError(reason, "Install torch 2.10 or later: pip install 'oneseek[train]'.")
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except MemoryError:
        raise
    except Exception as problem:
        raise RefusedError(
            f"torch.load with weights_only=True cannot load the file ({format_value(str(problem))})"
        ) from problem


def _stored(tensor: torch.Tensor, name: str) -> torch.Tensor:
    import torch

    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise RefusedError(
            f"the LoRA weights of {name} have the type {tensor.dtype}; OneSeek converts only float weights"
        )
    kept = tensor.detach().to(torch.float32 if tensor.dtype == torch.float64 else tensor.dtype)
    return kept.clone(memory_format=torch.contiguous_format)


def main(arguments: list[str]) -> int:
    """Convert the file that the command line names, and print the result as one line of JSON. A refused file
    is a normal result, with exit code 0.
    """
    file, folder, limits = (
        Path(arguments[0]),
        Path(arguments[1]),
        ConversionLimits(**json.loads(arguments[2])),
    )
    try:
        if not is_safetensors(file):
            check_archive(file, limits)  # before torch is there: most refusals are decided here
        import torch

        torch.set_num_threads(1)
        confine(file, limits)
        answer = extract_lora(file, folder, limits)
    except RefusedError as error:
        answer = {"refused": {"reason": error.reason, "remedy": error.remedy}}
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # what torch says in the place of MemoryError
            raise
        answer = {"refused": {"reason": _NO_MEMORY, "remedy": _SAVE_AGAIN}}
    except MemoryError:
        answer = {"refused": {"reason": _NO_MEMORY, "remedy": _SAVE_AGAIN}}
    except zipfile.BadZipFile:
        answer = {
            "refused": {
                "reason": "the file is damaged, so its zip entries cannot be read",
                "remedy": _SAVE_AGAIN,
            }
        }
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
