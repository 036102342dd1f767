"""Start a server for comparison by its name, with a base and adapters, and stop it afterwards."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.contenders.launch import CONTENDERS, StartOptions, missing_modules
from bench.servers import Server, free_port, serving
from bench.target.http import Endpoint

START_SECONDS = 600.0
"""Maximum seconds for the start of a server. vLLM needs long because it compiles its graphs."""


@contextmanager
def started(name: str, given: StartOptions) -> Generator[Server]:
    """Start the server called `name`, yield it when it is ready, and stop it when the `with` block ends.

    Raises `ValueError` for an unknown name, and `RuntimeError` if the server is not installed or does not
    start.
    """
    if name not in CONTENDERS:
        raise ValueError(
            f"the server {name!r} cannot be started, because its name is unknown; use one of "
            f"{', '.join(CONTENDERS)}"
        )
    contender = CONTENDERS[name]
    given.work.mkdir(parents=True, exist_ok=True)
    missing = missing_modules(given.python, contender.modules)
    if missing:
        raise RuntimeError(
            f"the server {name} needs {missing}, which {given.python} lacks; install it, or give another "
            "Python interpreter with --python"
        )
    port = free_port()
    launch = contender.launch(given, port)
    log = given.work / f"{given.label or name}.log"
    with serving(launch.command, port, log, launch.env, START_SECONDS) as server:
        if contender.loads_over_http:
            _load_all(server.url, given.adapters)
        yield server


def _load_all(url: str, adapters: Mapping[str, Path]) -> None:
    """Load all adapters over HTTP, for servers such as vLLM's Rust front end that take none on their command
    line. Raises `RuntimeError` if the server refuses an adapter.
    """
    for adapter, path in adapters.items():
        body = {"lora_name": adapter, "lora_path": str(path.resolve())}
        status, said = Endpoint(url).call("/v1/load_lora_adapter", body)
        if status != 200:
            raise RuntimeError(
                f"the server at {url} did not load the adapter {adapter} (status {status}); use --scenario "
                f"front-end, which needs no adapters. The server said: {said.decode(errors='replace')[:500]}"
            )
