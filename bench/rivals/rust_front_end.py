"""vLLM's Rust front end: the environment in which vLLM's server starts it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


def rust_front_end(python: Path, adapter_folders: Sequence[Path]) -> dict[str, str]:
    """Environment for the front end that `VLLM_RUST_FRONTEND_PATH` names, by default the package's own of
    `python`. It loads adapters from beneath `adapter_folders`.

    Raises `RuntimeError` if there is none: it comes with vLLM's CUDA wheels.
    """
    named = os.environ.get("VLLM_RUST_FRONTEND_PATH")
    if named is None:
        look = "import importlib.util as u; print(u.find_spec('vllm').submodule_search_locations[0])"
        found = subprocess.run([str(python), "-c", look], capture_output=True, text=True, check=False)
        named = str(Path(found.stdout.strip() or ".") / "vllm-rs")
    if not Path(named).is_file():
        raise RuntimeError(
            f"{named} is missing: vLLM's Rust front end comes with its CUDA wheels; name the file vllm-rs "
            "of one of the same version in VLLM_RUST_FRONTEND_PATH"
        )
    return {
        "VLLM_USE_RUST_FRONTEND": "1",
        "VLLM_RUST_FRONTEND_PATH": named,
        "VLLM_RUNTIME_LORA_ALLOWED_PATH_PREFIXES": ",".join(map(str, adapter_folders)),
    }
