"""Starts a contender by its name, with a base and adapters, and stops it after."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.contenders.launch import CONTENDERS, StartOptions, missing_modules
from bench.servers import Server, free_port, serving
from bench.target.http import Endpoint

START_SECONDS = 600.0
"""Seconds that a contender may take to start: vLLM compiles its graphs first."""


@contextmanager
def started(name: str, given: StartOptions) -> Generator[Server]:
    """The contender `name`, ready, until the block ends.

    Raises `ValueError` for an unknown name and `RuntimeError` if it is not installed or does not come up.
    """
    if name not in CONTENDERS:
        raise ValueError(f"contender {name!r} is unknown; one of: {', '.join(CONTENDERS)}")
    contender = CONTENDERS[name]
    given.work.mkdir(parents=True, exist_ok=True)
    missing = missing_modules(given.python, contender.modules)
    if missing:
        raise RuntimeError(
            f"{name} needs {missing}, which {given.python} lacks; name another interpreter with --python"
        )
    port = free_port()
    launch = contender.launch(given, port)
    log = given.work / f"{given.label or name}.log"
    with serving(launch.command, port, log, launch.env, START_SECONDS) as server:
        if contender.loads_over_http:
            _load_all(server.url, given.adapters)
        yield server


def _load_all(url: str, adapters: Mapping[str, Path]) -> None:
    """Over HTTP: vLLM's Rust front end takes no adapters on its command line."""
    for adapter, path in adapters.items():
        body = {"lora_name": adapter, "lora_path": str(path.resolve())}
        status, said = Endpoint(url).call("/v1/load_lora_adapter", body)
        if status != 200:
            raise RuntimeError(
                f"{url} does not load {adapter}; measure it without adapters "
                f"(--scenario front-end): {said.decode(errors='replace')[:500]}"
            )
