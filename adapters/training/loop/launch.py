"""Read from the environment how a launcher, such as `accelerate launch` or torchrun, started this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Launch:
    """How one process belongs to a run of several processes: its number and their count. The defaults
    describe a process that runs alone, without a launcher.
    """

    processes: int = 1
    """Number of processes in this run."""
    rank: int = 0
    """Number of this process, counted from 0. Process 0 writes the results."""
    local_rank: int | None = None
    """Number of this process among those on the same machine, which selects its GPU. None if no launcher
    started it.
    """

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Launch:
        """Read the environment variables `WORLD_SIZE`, `RANK` and `LOCAL_RANK`, which launchers set."""
        local = environ.get("LOCAL_RANK")
        return cls(
            processes=int(environ.get("WORLD_SIZE", "1")),
            rank=int(environ.get("RANK", "0")),
            local_rank=None if local is None else int(local),
        )


ALONE = Launch()
"""The launch of a process that was started without a launcher: the only process of its run."""
