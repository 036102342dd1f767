"""How a launcher such as `accelerate launch` or torchrun started this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Launch:
    """One process of a run. The defaults: the only one, started by nothing."""

    processes: int = 1
    """How many were started for this run."""
    rank: int = 0
    """Which of them this is; 0 writes what is made."""
    local_rank: int | None = None
    """Which of this machine's it is, and so its GPU; None if no launcher started it."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Launch:
        """What launchers say in `WORLD_SIZE`, `RANK` and `LOCAL_RANK`."""
        local = environ.get("LOCAL_RANK")
        return cls(
            processes=int(environ.get("WORLD_SIZE", "1")),
            rank=int(environ.get("RANK", "0")),
            local_rank=None if local is None else int(local),
        )


ALONE = Launch()
"""A process that no launcher started."""
