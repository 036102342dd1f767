"""The table of all engines: name, whether the engine suits this machine, how to open it, and its metrics.

To add an engine, add an entry to `ENGINES` and its name to the setting `engine.kind`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.registry import Collector

from server.config.settings import Settings
from server.engines.base import Engine
from server.engines.embedded.launch import start as embedded
from server.engines.setup import EngineSetup
from server.engines.suitability import Suitability
from server.engines.vllm import start as vllm

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class EngineKind:
    """A kind of engine (embedded or vLLM) that can run a base."""

    name: str
    judge: Callable[[Mapping[str, str]], Suitability]
    """Decides from the environment variables if this engine suits the machine."""
    open: Callable[[Settings, EngineSetup], Engine]
    """Opens the engine without starting it. Raises `SettingsError` and `EngineError`."""
    collectors: Callable[[], Sequence[Collector]] = tuple
    """Returns the Prometheus collectors of the engine's own metrics, once the engine has started."""
    divides_gpu: bool = False
    """True if the engine can be limited to a part of a GPU's memory, so that several bases fit on one GPU."""
    chooses_batch: bool = False
    """True if the engine chooses its batch size by the device's memory, unless `max_num_seqs` is set."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine that was chosen for a base, and the reason for the choice."""

    kind: EngineKind
    reason: str
    warning: str | None = None


ENGINES = {
    kind.name: kind
    for kind in (
        EngineKind(
            "vllm", vllm.judge, vllm.open_engine, vllm.collectors, divides_gpu=True, chooses_batch=True
        ),
        EngineKind("embedded", embedded.judge, embedded.open_engine),
    )
}
"""The kinds of engines in order of preference. The last one suits every machine."""


def choose_engine(name: str, environ: Mapping[str, str]) -> Choice:
    """Choose the engine called `name` or, if `name` is `auto`, the first engine that suits this machine."""
    if name != AUTO:
        return Choice(ENGINES[name], "as set")
    reasons: list[str] = []
    warning: str | None = None
    for kind in ENGINES.values():
        found = kind.judge(environ)
        reasons += filter(None, [found.reason])
        warning = warning or found.warning
        if found.suits:
            return Choice(kind, "; ".join(reasons), warning)
    raise AssertionError(
        "no engine suits this machine, but the last engine in ENGINES must suit every machine"
    )
