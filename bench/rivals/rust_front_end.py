"""Find vLLM's Rust front end, and the environment variables with which vLLM's server starts it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


def rust_front_end(python: Path, adapter_folders: Sequence[Path]) -> dict[str, str]:
    """Return the environment variables that make vLLM's server use its Rust front end.

    The program is the one that `VLLM_RUST_FRONTEND_PATH` names, by default that of the vLLM package of
    `python`. It may load adapters from folders below `adapter_folders`. Raises `RuntimeError` if the program
    does not exist; only vLLM's CUDA wheels contain it.
    """
    named = os.environ.get("VLLM_RUST_FRONTEND_PATH")
    if named is None:
        look = "import importlib.util as u; print(u.find_spec('vllm').submodule_search_locations[0])"
        found = subprocess.run([str(python), "-c", look], capture_output=True, text=True, check=False)
        named = str(Path(found.stdout.strip() or ".") / "vllm-rs")
    if not Path(named).is_file():
        raise RuntimeError(
            f"vLLM's Rust front end {named} does not exist; only vLLM's CUDA wheels have it. Set the "
            "variable VLLM_RUST_FRONTEND_PATH to the file vllm-rs from a CUDA wheel of the same version"
        )
    return {
        "VLLM_USE_RUST_FRONTEND": "1",
        "VLLM_RUST_FRONTEND_PATH": named,
        "VLLM_RUNTIME_LORA_ALLOWED_PATH_PREFIXES": ",".join(map(str, adapter_folders)),
    }
