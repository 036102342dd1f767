"""Check ONNX Runtime and its execution providers, and whether the chosen bases fit into memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from adapters.bases import FoundBase, find_base
from adapters.errors import BaseModelError
from adapters.files.weightfiles import weight_files
from server.config.bases import UTILIZATION
from server.config.each_base import BaseSettings, default_settings, each_base
from server.doctor.access import listens
from server.doctor.findings import Finding, divided, fault, ok, refused, warning
from server.doctor.gpus import read_driver
from server.doctor.subject import Subject
from server.engines.embedded.runners.available import available_memory, format_bytes
from server.engines.embedded.runners.device.flavours import FlavourError, check_flavours, find_installed
from server.engines.kinds import choose_engine
from server.engines.together import DEFAULT_UTILIZATION, PlannedBase, plan_together
from server.errors import EngineError

Found = tuple[BaseSettings, FoundBase]


def check_providers(subject: Subject) -> Iterator[Finding]:
    """Check that exactly one ONNX Runtime package is installed and that the chosen device starts."""
    settings = default_settings(subject.settings)
    flavours = find_installed()
    try:
        check_flavours(None if settings.device == "auto" else settings.device, flavours)
    except FlavourError as error:
        yield fault("providers", *divided(str(error)))
        return
    import onnxruntime as ort

    from server.engines.embedded.launch.device_choice import bring_up, candidates
    from server.engines.embedded.runners.cpu.bfloat16 import require_bfloat16

    available: list[str] = ort.get_available_providers()
    yield ok("providers", f"{flavours[0]}: {', '.join(available)}")
    try:
        if settings.device not in ("cpu", "auto"):
            chosen = candidates(settings.device, available)[0]
            bring_up(chosen)
            if chosen.hardware is not None:
                yield ok("providers", f"{chosen.name}: {chosen.ort} on the {chosen.hardware.upper()}")
        if settings.prefill_dtype == "bf16":
            require_bfloat16()
    except (EngineError, ValueError) as error:
        yield fault("providers", *divided(str(error)))


def check_bases(subject: Subject) -> Iterator[Finding]:
    """Check that each base is complete and supported, and that all of them fit into memory."""
    found: list[Found] = []
    for own in each_base(subject.settings):
        try:
            base = chosen_base(subject, own)
        except BaseModelError as error:
            yield refused("bases", error)
            continue
        try:
            _read_files(own, base)
        except (OSError, ValueError) as error:
            yield fault("bases", *divided(f"{base.path}: {error}"))
            continue
        found.append((own, base))
        yield ok("bases", f"{base.name} in {base.path}: {base.reason}")
        if base.warning is not None:
            yield warning(
                "bases", base.warning, "Remove files from the folder that do not belong to the base"
            )
    embedded = [one for one in found if not _divides_gpu(one, subject)]
    yield from _embedded(subject, embedded)
    yield from _vllm([one for one in found if one not in embedded])


def chosen_base(subject: Subject, own: BaseSettings) -> FoundBase:
    """Return the base that a server would serve with the settings `own`. Raises `BaseModelError`."""
    base = find_base(subject.root, own.settings.base_model)
    return base if own.name is None else replace(base, name=own.name)


def _read_files(own: BaseSettings, base: FoundBase) -> None:
    """Read the base's tokenizer, and the headers of its weight files, which show if a file is cut off. Raises
    `OSError` or `ValueError`.
    """
    from server.engines.embedded.model.checkpoint import Checkpoint
    from server.text.tokenizer import Tokenizer

    Tokenizer.load(base.path, tool_parser=own.settings.named_tool_parser)
    Checkpoint(base.path).close()


def _divides_gpu(found: Found, subject: Subject) -> bool:
    return choose_engine(found[0].settings.engine.kind, subject.environ).kind.divides_gpu


def _embedded(subject: Subject, found: Sequence[Found]) -> Iterator[Finding]:
    if not found:
        return
    from server.engines.embedded.model.families.lookup import read_model_config

    runnable: list[Found] = []
    for own, base in found:
        try:
            read_model_config(base.path)
            runnable.append((own, base))
        except ValueError as error:
            yield fault("bases", *divided(f"{base.path}: {error}"))
    on_cpu = [(own, base) for own, base in runnable if own.settings.device in ("cpu", "auto")]
    if on_cpu:
        yield from _memory(subject, on_cpu)
    yield from _room(subject, runnable)


def _memory(subject: Subject, found: Sequence[Found]) -> Iterator[Finding]:
    """Check that the bases fit into memory, as a server does at its start. Adapters are not counted."""
    lines: list[str] = []
    try:
        if len(found) == 1:
            lines.append(_fit_one(*found[0]))
        else:
            planned = [_planned(own, base) for own, base in found]
            plan_together(planned, subject.settings.max_loaded_bases, lines.append)
    except (EngineError, ValueError) as error:
        if listens(subject.settings.host, subject.settings.port):
            remedy = "A OneSeek server is running and uses memory; stop it and run this check again"
            yield warning("memory", divided(str(error))[0], remedy)
        else:
            yield fault("memory", *divided(str(error)))
        return
    yield ok("memory", lines[0])


def _fit_one(own: BaseSettings, base: FoundBase) -> str:
    from server.engines.embedded.launch.memory_fit import fit
    from server.engines.embedded.launch.options import plan
    from server.engines.embedded.launch.start import embedded_options
    from server.engines.embedded.model.families.lookup import read_model_config

    config = read_model_config(base.path)
    options = embedded_options(own.settings)
    _, memory = fit(config, options, (), lambda changed: plan(config, changed), available_memory())
    return memory.lines()[0]


def _planned(own: BaseSettings, base: FoundBase) -> PlannedBase:
    return PlannedBase(
        name=base.name,
        kind="embedded",
        path=base.path,
        settings=own.settings,
        adapters=(),
        on_demand=own.on_demand,
    )


def _room(subject: Subject, found: Sequence[Found]) -> Iterator[Finding]:
    """Check that the disk has room for the embedded engine's graphs, which are as large as the weights."""
    home = subject.settings.home
    free = shutil.disk_usage(existing(home)).free
    size = sum(path.stat().st_size for _, base in found for path in weight_files(base.path))
    if (home / "graphs").is_dir() or size <= free:
        yield ok("disk", f"{format_bytes(free)} free on the disk of {home}")
        return
    yield fault(
        "disk",
        f"{format_bytes(free)} are free on the disk of {home}, but graphs need about {format_bytes(size)}",
        "Free some space, or use another folder with --home PATH",
    )


def _vllm(found: Sequence[Found]) -> Iterator[Finding]:
    """Check that each base's weights fit into the memory of the GPUs that vLLM may use. vLLM itself needs
    more.
    """
    driver = read_driver() if found else None
    if driver is None or not driver.gpus:
        return
    total = sum(gpu.total for gpu in driver.gpus)
    for own, base in found:
        share = own.settings.engine.options.get(UTILIZATION, str(DEFAULT_UTILIZATION))
        part = int(total * float(share))
        size = sum(path.stat().st_size for path in weight_files(base.path))
        shown = f"{base.name}: {format_bytes(size)} of weights"
        if size > part:
            remedy = "Use a smaller or quantized base, or more GPUs (tensor_parallel_size, under engine)"
            yield fault("memory", f"{shown}, but vLLM may use only {format_bytes(part)} of the GPUs", remedy)
        else:
            yield ok("memory", f"{shown}; vLLM may use {format_bytes(part)} of the GPUs")


def existing(path: Path) -> Path:
    """Return `path`, or its nearest parent folder that exists."""
    path = path.absolute()
    return next((one for one in (path, *path.parents) if one.exists()), path)
