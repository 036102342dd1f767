"""Run llama.cpp's HTTP server from the package `xllamacpp`, on machines without the program `llama-server`.

    ENV/bin/python -m bench.rivals.llama_server base.gguf --port 8001 --streams 16 --context 32768

ENV is a Python environment with `xllamacpp`. Its wheel for Linux is built without AVX-512 and AMX, so a build
from source is faster. The server gets the same settings as `llama-server` does in a benchmark.
"""

from __future__ import annotations

import argparse
import signal
from importlib import import_module
from pathlib import Path
from typing import Any


def main() -> None:
    """Run the HTTP server until the process gets a signal to stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--streams", type=int, default=1, help="maximum number of requests in a batch")
    parser.add_argument(
        "--context", type=int, default=4096, help="size of the KV cache in tokens, for all streams together"
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="number of CPU threads (default: one for each core)"
    )
    given = parser.parse_args()
    # The server's threads do not stop with the interpreter.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    server = import_module("xllamacpp").Server(_settings(given))
    print(f"listening on {server.listening_address}", flush=True)
    signal.pause()


def _settings(given: argparse.Namespace) -> Any:
    settings = import_module("xllamacpp").CommonParams()
    settings.model.path = str(given.model)
    settings.model_alias = {"base"}
    settings.hostnames = ["127.0.0.1"]
    settings.port = given.port
    settings.n_parallel = given.streams
    settings.n_ctx = given.context
    settings.cont_batching = True
    settings.endpoint_metrics = True
    if given.threads:
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = given.threads
    return settings


if __name__ == "__main__":
    main()
