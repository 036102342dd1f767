"""One base with everything that serves it (engine, adapters, router), as `live`, `rollout` and endpoints use
it.
"""

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
from server.metrics.measured import MeasuredBase
from server.metrics.metrics import Metrics
from server.text.tokenizer import Tokenizer


@dataclass(slots=True, kw_only=True)
class Runtime:
    """Everything that serves one base. A server has one runtime for each base."""

    name: str
    """The base's public name."""
    engine: Engine
    served: ServedAdapters
    router: Router
    """Chooses among the adapters in `served` by language. Replaced when the languages change."""
    tokenizer: Tokenizer
    metrics: Metrics
    priorities: Priorities | None = None
    """Which adapters get slots first and keep them longest. Default: those of routed languages."""
    on_demand: OnDemandEngine | None = None
    """The same engine, if it loads its base on demand; else None."""
    residency: Residency = field(init=False)
    info: EngineInfo = field(init=False)
    """Properties of the engine that never change, such as its context length and number of adapter slots."""

    def __post_init__(self) -> None:
        self.info = self.engine.info
        self.residency = Residency(self.engine, self.metrics, self.priorities or Priorities(self.served))
        engine = self.engine
        self.metrics.serve(
            self.name,
            MeasuredBase(self.served, lambda: engine.residents.open, self.info.max_adapters),
        )

    @property
    def loaded(self) -> bool:
        """True if the base is in memory. Only a base that is loaded on demand can be absent."""
        return self.on_demand is None or self.on_demand.engine is not None

    def knows(self, name: str) -> bool:
        """True if `name`, or the first adapter of a blend, is this base or one of its adapters."""
        base, rest = split_base(first_name(name))
        if base is not None and not self.served.has_base(base):
            return False
        return (
            self.served.is_base(rest)
            or self.served.is_adapter(rest)
            or (base is not None and is_automatic(rest))
        )
