"""Choose the server that a verb of `oneseek bench` measures, from the flags: find a running server or start
one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.cli.options import BenchMistakeError, count, pairs
from bench.contenders.adapters import BASE, MINI_ADAPTERS, random_adapters
from bench.contenders.launch import ADMIN_KEY, CONTENDERS, ON_VLLM, StartOptions
from bench.contenders.merged import plain_copy
from bench.contenders.start import started
from bench.scenarios.scenario import ServingScenario
from bench.target.http import Endpoint
from bench.target.probe import TargetServer, probe

DEFAULT_URL = "http://127.0.0.1:8000"
WORK = Path(tempfile.gettempdir()) / "oneseek-bench"
OWN = Path(sys.executable)
LEAST_STREAMS = 32
"""Minimum batch size of a server that the benchmark starts. More concurrent users raise it."""


def add_target_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose the server to measure."""
    add = parser.add_argument_group("server to measure").add_argument
    add("--url", default="", help=f"Measure the running server at this address. Default: {DEFAULT_URL}.")
    add(
        "--start", default="", metavar="NAME", help=f"Start a server and measure it: {', '.join(CONTENDERS)}."
    )
    add_access_flags(parser)


def add_access_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for access to a running server: its API keys, and the names and folders of its
    adapters.
    """
    add = parser.add_argument_group("keys and adapters").add_argument
    add(
        "--key",
        default="",
        help="API key of the server. Prefer the variable OPENAI_API_KEY; flags are visible in `ps`.",
    )
    add("--admin-key", default="", help="Admin key of the server, for scenarios that load adapters.")
    add(
        "--adapter",
        action="append",
        default=[],
        metavar="LANGUAGE=NAME",
        help="Use the adapter NAME for a language, such as sv=my-sv. Repeatable.",
    )
    add(
        "--adapter-path",
        action="append",
        default=[],
        metavar="FOLDER",
        help="Load the adapter in this folder, in scenarios that load adapters during the run. Repeatable.",
    )


def add_start_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for a server that the benchmark starts."""
    add = parser.add_argument_group("options for --start").add_argument
    add(
        "--base-model",
        type=Path,
        default=BASE,
        help="Serve this base. Default: the mini base that OneSeek ships.",
    )
    add(
        "--load-adapter",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="Serve the adapter in the folder PATH under this name. Repeatable.",
    )
    add(
        "--slots",
        type=count,
        default=0,
        help="Number of adapter slots in the server's engine. Default: the scenario's.",
    )
    add(
        "--python", action="append", default=[], metavar="[NAME=]PATH",
        help="Run the server (or only the server NAME) with this Python interpreter. Default: this one.",
    )  # fmt: skip
    add("--gguf", type=Path, help="Serve this GGUF file with llama.cpp. Default: one made from the base.")
    add("--work", type=Path, default=WORK, help=f"Folder for the servers' homes and logs. Default: {WORK}.")
    add(
        "--engine-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="Set this option of vLLM's engine, by vLLM's name, for all servers with vLLM. Repeatable.",
    )
    add(
        "--server-option",
        action="append",
        default=[],
        metavar="FLAG",
        help="Pass this flag on to the started server. Repeatable.",
    )


@dataclass(frozen=True, slots=True)
class ServerChoice:
    """The server to measure, as the command-line flags describe it."""

    url: str
    """Address of the running server. Empty if no flag gives an address."""
    start: str
    """Name of the server to start, such as `vllm`. Empty if a running server is measured."""
    key: str
    admin_key: str
    languages: Mapping[str, str]
    """Maps each language code to the name of the adapter that answers in that language."""
    adapter_paths: tuple[str, ...]
    base: Path
    adapters: Mapping[str, Path]
    slots: int
    streams: int
    pythons: Mapping[str, Path]
    """Maps the name of each server that can be started to the path of its Python interpreter. The empty name
    is the default for all others.
    """
    gguf: Path | None
    work: Path
    options: tuple[str, ...]
    engine: Mapping[str, str]
    """Options for vLLM's engine, by the names that vLLM gives them."""

    @classmethod
    def read(cls, given: argparse.Namespace) -> ServerChoice:
        """Read the server to measure from parsed flags. Raises `BenchMistakeError` if a flag has the wrong
        form.
        """
        flags = vars(given)
        named = {name: Path(path) for name, path in pairs(given.load_adapter, "--load-adapter").items()}
        if not named and given.base_model == BASE:
            named = dict(MINI_ADAPTERS)
        return cls(
            url=flags.get("url", ""),
            start=flags.get("start", ""),
            key=given.key or os.environ.get("OPENAI_API_KEY", ""),
            admin_key=given.admin_key,
            languages=pairs(given.adapter, "--adapter"),
            adapter_paths=tuple(given.adapter_path),
            base=given.base_model,
            adapters=named,
            slots=given.slots,
            streams=max((LEAST_STREAMS, *_numbers(flags.get("users", 0)))),
            pythons=_pythons(given.python),
            gguf=given.gguf,
            work=given.work,
            options=tuple(given.server_option),
            engine=pairs(given.engine_option, "--engine-option"),
        )

    def python_of(self, contender: str) -> Path:
        """Return the Python interpreter that runs the server named `contender`."""
        return self.pythons.get(contender) or self.pythons.get("", OWN)

    @property
    def python(self) -> Path:
        """Interpreter whose package versions the report lists: the interpreter of the started server."""
        return self.python_of(self.start)


def _numbers(users: int | tuple[int, ...]) -> tuple[int, ...]:
    return users if isinstance(users, tuple) else (users,)


def _pythons(entries: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for entry in entries:
        name, mark, path = entry.partition("=")
        if not mark:
            found[""] = Path(entry)
        elif name in CONTENDERS and path:
            found[name] = Path(path)
        else:
            raise BenchMistakeError(
                f"--python {entry!r} is invalid; use PATH, or NAME=PATH with a NAME that --start accepts"
            )
    return found


@dataclass(frozen=True, slots=True)
class OpenTarget:
    """A running server to measure, with the admin key and the adapter folders that a scenario needs to change
    its adapters.
    """

    server: TargetServer
    admin_key: str
    adapter_paths: tuple[str, ...]


@contextmanager
def opened(choice: ServerChoice, scenarios: tuple[ServingScenario, ...] = ()) -> Generator[OpenTarget]:
    """Yield the server to measure: the running server that the flags name, or a new server with the adapters
    that `scenarios` need.
    """
    if not choice.start:
        yield running(choice, choice.url or DEFAULT_URL)
        return
    if choice.url:
        raise BenchMistakeError(
            "--url and --start cannot be combined; give --url for a running server, or --start for a new one"
        )
    options, paths = start_options(choice, choice.start, scenarios)
    with started(choice.start, options) as server:
        yield OpenTarget(probe(Endpoint(server.url), choice.languages), ADMIN_KEY, paths)


def running(choice: ServerChoice, url: str) -> OpenTarget:
    """Describe the running server at `url`. Raises `BenchMistakeError` if it is not an address, and
    `TargetError` if the server does not answer.
    """
    if not _is_address(url):
        raise BenchMistakeError(
            f"{url!r} is not the address of a server; use one such as http://127.0.0.1:8000"
        )
    headers = {"Authorization": f"Bearer {choice.key}"} if choice.key else {}
    endpoint = Endpoint(url.rstrip("/").removesuffix("/v1"), headers)
    return OpenTarget(probe(endpoint, choice.languages), choice.admin_key or choice.key, choice.adapter_paths)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and " " not in url
        )
    except ValueError:
        return False


def start_options(
    choice: ServerChoice, contender: str, scenarios: tuple[ServingScenario, ...] = ()
) -> tuple[StartOptions, tuple[str, ...]]:
    """Return the options to start a server for `scenarios`, and the folders of adapters that it can load
    during the run.
    """
    if choice.engine and contender not in ON_VLLM:
        raise BenchMistakeError(
            f"--engine-option has no effect on {contender!r}, which does not run vLLM's engine; remove it, "
            f"or start one of {', '.join(ON_VLLM)}"
        )
    named, base = choice.adapters, choice.base
    if scenarios and all(scenario.plain for scenario in scenarios):
        named, base = {}, plain_copy(base, choice.work / "plain" / base.name)
    wanted = max((scenario.adapters for scenario in scenarios), default=0)
    if wanted:
        named = random_adapters(choice.work / f"random-{base.name}", base, wanted)
    paths: tuple[str, ...] = ()
    if any(scenario.event for scenario in scenarios):
        paths = tuple(map(str, random_adapters(choice.work / "changed", base, 2, "version").values()))
    slots = choice.slots or max((scenario.slots for scenario in scenarios), default=0)
    options = StartOptions(
        work=choice.work,
        base=base,
        adapters=named,
        slots=slots if slots < len(named) else 0,
        streams=choice.streams,
        python=choice.python_of(contender),
        gguf=choice.gguf,
        options=choice.options,
        engine=choice.engine,
    )
    return options, paths
