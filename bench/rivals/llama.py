"""Measure llama.cpp on a GGUF file: read tasks from standard input, and write the results as JSON lines.

    ENV/bin/python -m bench.rivals.llama models/random.gguf --threads 2 --context 1024

ENV is a Python environment with `llama-cpp-python`, built from source for this machine. The first line of
output describes llama.cpp and the CPU features that it uses. Each line of input is a JSON object. {"prompt":
512, "tokens": 32} computes a prompt of 512 random tokens and then 32 tokens one by one, and returns the
seconds of the prompt and of each token. {"ids": [...]} computes these tokens and returns the logits after the
last one. An empty line ends the process.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

llama_cpp: Any = import_module("llama_cpp")  # of the rival's environment, not of ours

SEED = 1


class Llama:
    """A GGUF model in llama.cpp, with a single sequence."""

    def __init__(self, path: Path, threads: int, context: int, batch: int) -> None:
        llama_cpp.llama_backend_init()
        began = time.perf_counter()
        settings = llama_cpp.llama_model_default_params()
        settings.use_mmap = True
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load the model {path}; give a GGUF file")
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = context, batch, batch
        options.n_threads = options.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, options)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot allocate a context of {context} tokens; lower --context")
        self.vocabulary = int(llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model)))
        self.load_seconds = time.perf_counter() - began
        self._random = random.Random(SEED)

    def compute(self, tokens: Sequence[int]) -> None:
        """Compute `tokens` as the continuation of the tokens computed so far."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        status = llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(array, len(tokens)))
        if status:
            raise RuntimeError(
                f"llama.cpp failed to compute tokens: llama_decode returned the status {status}"
            )
        llama_cpp.llama_synchronize(self._context)

    def forget(self) -> None:
        """Forget all tokens computed so far."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)

    def logits(self) -> list[float]:
        """Return the logits after the last computed token."""
        pointer = llama_cpp.llama_get_logits_ith(self._context, -1)
        return [float(pointer[i]) for i in range(self.vocabulary)]

    def measure(self, prompt: int, tokens: int) -> dict[str, Any]:
        """Compute a random prompt and `tokens` random tokens after it one by one. Return the seconds of the
        prompt, and of each step.
        """
        self.forget()
        began = time.perf_counter()
        self.compute([self._random.randrange(10, self.vocabulary - 10) for _ in range(prompt)])
        after = time.perf_counter()
        steps: list[float] = []
        for _ in range(tokens):
            start = time.perf_counter()
            self.compute([self._random.randrange(10, self.vocabulary - 10)])
            steps.append(time.perf_counter() - start)
        return {"prompt_seconds": after - began, "step_seconds": steps}


def main() -> None:
    """Load the model, describe llama.cpp, and then answer each line of standard input."""
    parser = argparse.ArgumentParser(description="Measure llama.cpp; commands come over standard input.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=512)
    given = parser.parse_args()
    quiet = llama_cpp.llama_log_callback(_ignore)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama = Llama(given.model, given.threads, given.context, given.batch)
    info = llama_cpp.llama_print_system_info().decode()
    _answer({"version": llama_cpp.__version__, "system": info, "load_seconds": round(llama.load_seconds, 2)})
    for line in sys.stdin:
        if not line.strip():
            break
        asked = json.loads(line)
        if "ids" in asked:
            llama.forget()
            llama.compute(asked["ids"])
            _answer({"logits": llama.logits()})
        else:
            _answer(llama.measure(asked["prompt"], asked["tokens"]))


def _ignore(level: int, text: bytes, data: object) -> None:
    """Drop a line of llama.cpp's log."""


def _answer(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
