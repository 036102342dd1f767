"""The command line and the environment of each contender that the suite can start."""

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
"""Opens the loading of adapters on a server that listens on the loopback interface alone."""
ROOT = Path(__file__).parents[2]
LLAMA_CONTEXT = 2048
"""Maximum number of tokens of one request at llama.cpp, which reserves them for every stream."""


@dataclass(frozen=True, slots=True)
class StartOptions:
    """The options that every contender (server to compare) is started with, if it supports them."""

    work: Path
    """Homes, logs and random adapters."""
    base: Path = BASE
    adapters: Mapping[str, Path] = field(default_factory=lambda: dict(MINI_ADAPTERS))
    slots: int = 0
    """Adapters in the engine at once; 0 is all of them."""
    streams: int = 32
    python: Path = Path(sys.executable)
    """Interpreter that has the contender."""
    checkout: Path = ROOT
    """The folder of OneSeek's source code."""
    gguf: Path | None = None
    """The base for llama.cpp, which reads no other format; made of `base` if it is not given."""
    options: tuple[str, ...] = ()
    """Further options of the contender's own command line."""
    engine: Mapping[str, str] = field(default_factory=dict[str, str])
    """Options of vLLM's engine, by vLLM's names, for contenders that run it."""
    label: str = ""
    """Name that distinguishes two servers of the same kind."""


@dataclass(frozen=True, slots=True)
class ContenderLaunch:
    """How to start one contender (a server to compare)."""

    command: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Contender:
    """One server that the suite can start."""

    launch: Callable[[StartOptions, int], ContenderLaunch]
    """Returns the contender's command line for a port. Raises `RuntimeError` if a part of it is not
    installed.
    """
    modules: tuple[str, ...] = ()
    """The packages that the contender's Python interpreter must have."""
    loads_over_http: bool = False
    """True if the contender does not accept adapters on its command line."""


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
    """The largest of the adapters', as vLLM wants to know it beforehand."""
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
            "llama.cpp is not there: put llama-server on the PATH or into LLAMA_SERVER, or give an "
            "interpreter that has its server as a package (pip install xllamacpp): --python llama.cpp=PATH"
        )
    command = [str(given.python), "-m", "bench.rivals.llama_server", str(_gguf(given)), "--port", str(port)]
    command += ["--streams", str(given.streams), "--context", context]
    return ContenderLaunch((*command, *given.options), {"PYTHONPATH": _path(ROOT)})


def _gguf(given: StartOptions) -> Path:
    """The base as GGUF in 16 bits, made once. Raises `RuntimeError` if it cannot be made."""
    if given.gguf is not None:
        return given.gguf
    out = given.work / f"{given.base.name}-f16.gguf"
    if out.is_file():
        return out
    missing = missing_modules(given.python, ("gguf", "safetensors", "ml_dtypes"))
    if missing:
        raise RuntimeError(
            f"llama.cpp reads GGUF files alone: give the base as --gguf FILE, or install {missing} beside "
            f"{given.python} so that it can be made"
        )
    command = [str(given.python), "-m", "bench.rivals.gguf", str(given.base), str(out), "--type", "F16"]
    env = os.environ | {"PYTHONPATH": _path(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"{given.base} is not written as GGUF: {done.stderr.strip()[-1000:]}")
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
"""The contenders (servers to compare) that run vLLM's engine and accept its options."""


def missing_modules(python: Path, modules: tuple[str, ...]) -> str:
    """Return the packages that `python` lacks, separated by spaces, or the reason why it does not run."""
    look = "import importlib.util as u, sys; print(*[m for m in sys.argv[1:] if u.find_spec(m) is None])"
    try:
        found = subprocess.run(
            [str(python), "-c", look, *modules], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return str(error)
    return found.stdout.strip() if found.returncode == 0 else found.stderr.strip()
