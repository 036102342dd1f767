"""Start the servers of a GPU benchmark, OneSeek and vLLM, with the same engine options."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gpu.models import ADAPTERS, RANKS
from bench.gpu.scenarios import SLOTS
from bench.gpu.swap import swap_adapter
from bench.rivals.rust_front_end import rust_front_end
from bench.servers import Server, free_port, oneseek, serving, vllm

SERVERS = ("oneseek", "vllm", "vllm-rust")
"""Names of the servers that a GPU benchmark can compare. `vllm-rust` is vLLM's server behind its Rust front
end.
"""
ADMIN_KEY = "bench-admin"
"""Admin key with which the benchmark replaces an adapter on OneSeek's server. The server listens on the
loopback interface only.
"""
BATCHED_TOKENS = 8192
"""Maximum number of tokens in an engine step: vLLM's own default for a server on a large GPU."""
LONGEST_START = 400.0
"""Maximum seconds to wait until a started server answers."""
ROOT = Path(__file__).parents[2]
TOLD = {
    "kv_cache_tokens": r"KV cache size: ([\d,]+) tokens",
    "kv_cache_gib": r"Available KV cache memory: ([\d.]+) GiB",
    "model_gib": r"Model loading took ([\d.]+) GiB",
}


@dataclass(frozen=True, slots=True)
class Contenders:
    """Starts OneSeek's or vLLM's server with the base and its adapters."""

    work: Path
    python: Path
    base: Path
    adapters: Mapping[str, Path]
    settings: Mapping[str, Any]
    on_gpu: bool

    @contextmanager
    def start(self, server: str, start: str) -> Generator[Server]:
        """Start the server and load its adapters. Raises `RuntimeError` if it does not become ready."""
        port = free_port()
        command = self.command(server, start, port)
        rust = rust_front_end(self.python, [self.work]) if server == "vllm-rust" else {}
        environment = self._environment() | rust
        with serving(command, port, self._log(server, start), environment, wait=LONGEST_START) as running:
            if server == "vllm-rust" and SLOTS[start]:
                asyncio.run(self._load(running.url))
            yield running

    async def _load(self, url: str) -> None:
        """Load the adapters over HTTP, because vLLM's Rust front end has no flag for them."""
        for name, folder in self.adapters.items():
            await swap_adapter(url, name, folder, ADMIN_KEY)

    def command(self, server: str, start: str, port: int) -> list[str]:
        """Return the command line that starts the server. For OneSeek, also write the configuration file that
        the command names.
        """
        adapters = self.adapters if SLOTS[start] else {}
        if server == "oneseek":
            return self._oneseek(port, start, adapters)
        return self._vllm(port, start, adapters, named=server == "vllm")

    def memory_figures(self, server: str, start: str) -> dict[str, float]:
        """Return the memory figures in the engine's log: size of the model, and size and tokens of the KV
        cache.
        """
        text = self._log(server, start).read_text(errors="replace")
        found = {name: re.search(pattern, text) for name, pattern in TOLD.items()}
        return {name: float(match[1].replace(",", "")) for name, match in found.items() if match}

    def _log(self, server: str, start: str) -> Path:
        return self.work / f"{server}-{start}.log"

    @property
    def _context(self) -> int:
        """Maximum context in tokens: the length of a request, rounded up to a power of two."""
        return 1 << (self.settings["prompt"] + self.settings["tokens"] - 1).bit_length()

    def _engine(self) -> dict[str, Any]:
        """Return the engine options of both servers, by vLLM's names. Options for which OneSeek has settings
        of its own are left out.
        """
        options: dict[str, Any] = {"dtype": self.settings["dtype"]}
        if self.on_gpu:
            options["gpu_memory_utilization"] = self.settings["gpu_memory_utilization"]
        return options | self.settings["engine_options"]

    def _lora(self, start: str) -> dict[str, Any]:
        return {"max_loras": SLOTS[start], "max_cpu_loras": len(ADAPTERS) + 3, "max_lora_rank": max(RANKS)}

    def _sizes(self) -> dict[str, int]:
        sequences = self.settings["max_num_seqs"]
        tokens = max(BATCHED_TOKENS, sequences)
        return {
            "max_num_seqs": sequences,
            "max_num_batched_tokens": tokens,
            "max_model_len": self._context,
        }

    def _vllm(self, port: int, start: str, adapters: Mapping[str, Path], *, named: bool) -> list[str]:
        options = self._engine() | self._sizes()
        if adapters:
            options["max_cpu_loras"] = self._lora(start)["max_cpu_loras"]
        flags = [text for name, value in options.items() for text in _flag(name, value)]
        flags += ["--enable-prefix-caching", "--disable-uvicorn-access-log"]
        return vllm(
            self.python,
            self.base,
            adapters,
            port,
            *flags,
            slots=SLOTS[start] or None,
            rank=max(RANKS),
            name_adapters=named,
        )

    def _oneseek(self, port: int, start: str, adapters: Mapping[str, Path]) -> list[str]:
        engine: dict[str, Any] = {"kind": self.settings["engine"]}
        if engine["kind"] == "vllm":
            engine |= self._engine() | {"enable_lora": bool(adapters)}
            engine |= self._lora(start) if adapters else {}
        config: dict[str, Any] = {"engine": engine, "prefix_caching": True} | self._sizes()
        config["max_queue"] = self.settings["max_num_seqs"]
        config["home"] = str(self.work / "oneseek-home")
        config |= {"admin_keys": [ADMIN_KEY], "adapter_roots": [str(self.work)]}
        path = self.work / f"oneseek-{start}.yaml"
        path.write_text(json.dumps(config, indent=1))  # JSON is YAML
        return oneseek(self.base, adapters, port, "--config", str(path), python=self.python)

    def _environment(self) -> dict[str, str]:
        """Return the environment variables of a server: offline mode, a compile cache that all starts share,
        and this checkout as the source of OneSeek.
        """
        path = os.environ.get("PYTHONPATH")
        found = {
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CACHE_ROOT": str(self.work / "vllm-cache"),
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "PYTHONPATH": f"{ROOT}:{path}" if path else str(ROOT),
        }
        if not self.on_gpu:
            found["VLLM_CPU_KVCACHE_SPACE"] = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")
        return found


def _flag(name: str, value: object) -> list[str]:
    """Return an engine option as flags of vLLM's command line."""
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{dashed}" if value else f"--no-{dashed}"]
    return [f"--{dashed}", value if isinstance(value, str) else json.dumps(value)]
