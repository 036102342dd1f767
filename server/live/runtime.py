"""One base with everything that serves it: what `live`, `rollout` and the endpoints are given."""

from __future__ import annotations

from dataclasses import dataclass, field

from adapters.registry.served import ServedAdapters
from routing.route import Router
from server.engines.base import Engine
from server.live.residency import Residency
from server.metrics.engine_state import EngineInfo
from server.metrics.metrics import Metrics
from server.text.tokenizer import Tokenizer


@dataclass(slots=True, kw_only=True)
class Runtime:
    """A base that is served. A server holds one for each of its bases."""

    name: str
    """The base's public name."""
    engine: Engine
    served: ServedAdapters
    router: Router
    """Chooses among `served`; another one takes its place when the languages change."""
    tokenizer: Tokenizer
    metrics: Metrics
    residency: Residency = field(init=False)

    def __post_init__(self) -> None:
        self.residency = Residency(self.engine, self.metrics)

    @property
    def info(self) -> EngineInfo:
        """What never changes about the engine."""
        return self.engine.info

    def knows(self, name: str) -> bool:
        """True if `name` is this base's or one of its adapters'."""
        return self.served.is_base(name) or self.served.is_adapter(name)
