"""One base with everything that serves it: what `live`, `rollout` and the endpoints are given."""

from __future__ import annotations

from dataclasses import dataclass, field

from adapters.registry.served import ServedAdapters
from routing.route import Router
from routing.selection import first_name, is_automatic, split_base
from server.engines.base import Engine
from server.engines.ondemand import OnDemandEngine
from server.live.slots.priorities import Priorities
from server.live.slots.residency import Residency
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
    priorities: Priorities | None = None
    """Which adapters go first if there are more than slots. Default: those of routed languages."""
    on_demand: OnDemandEngine | None = None
    """The engine, if it is loaded when a request needs it."""
    residency: Residency = field(init=False)
    info: EngineInfo = field(init=False)
    """What never changes about the engine."""

    def __post_init__(self) -> None:
        self.info = self.engine.info
        self.residency = Residency(self.engine, self.metrics, self.priorities or Priorities(self.served))
        self.metrics.serve(self.name, self.served.adapters)

    def knows(self, name: str) -> bool:
        """True if `name`, or the first of a blend, is this base's or one of its adapters'."""
        base, rest = split_base(first_name(name))
        if base is not None and not self.served.is_base(base):
            return False
        return (
            self.served.is_base(rest)
            or self.served.is_adapter(rest)
            or (base is not None and is_automatic(rest))
        )
