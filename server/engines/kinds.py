"""Every engine in one table: its name, whether it suits this machine, how it is opened, what it measures.

A new engine is one entry in `ENGINES`, and its name in the setting `engine.kind`.
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
    """One engine that can run a base."""

    name: str
    judge: Callable[[Mapping[str, str]], Suitability]
    """Whether it suits a machine whose processes have this environment."""
    open: Callable[[Settings, EngineSetup], Engine]
    """An engine, not yet started. Raises `SettingsError` and `EngineError`."""
    collectors: Callable[[], Sequence[Collector]] = tuple
    """Metrics that the engine keeps in a registry of its own, once it has started."""
    divides_gpu: bool = False
    """True if it takes a share of a GPU that it is told, for several bases on one."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, and why it is that one."""

    kind: EngineKind
    reason: str
    warning: str | None = None


ENGINES = {
    kind.name: kind
    for kind in (
        EngineKind("vllm", vllm.judge, vllm.open_engine, vllm.collectors, divides_gpu=True),
        EngineKind("embedded", embedded.judge, embedded.open_engine),
    )
}
"""In order of preference; the last one suits every machine."""


def choose_engine(name: str, environ: Mapping[str, str]) -> Choice:
    """The engine called `name`, or if that is `auto`, the first that suits this machine."""
    if name != AUTO:
        return Choice(ENGINES[name], "as the settings say")
    reasons: list[str] = []
    warning: str | None = None
    for kind in ENGINES.values():
        found = kind.judge(environ)
        reasons += filter(None, [found.reason])
        warning = warning or found.warning
        if found.suits:
            return Choice(kind, "; ".join(reasons), warning)
    raise AssertionError("the last engine suits every machine")
