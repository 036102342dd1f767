"""Load and unload adapters on a server during a run, through two endpoints that both vLLM and
OneSeek have.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.load.records import LoadProgress
from bench.target.http import Endpoint, TargetError

POLL = 0.05
CHANGED = "bench-changed"
"""Name of the adapter that the benchmark loads and unloads during a run."""


@dataclass(frozen=True, slots=True)
class AdapterChange:
    """A change of the server's adapters (load or unload), and the server's answer to it."""

    action: str
    name: str
    at: float
    """Time of the change, in seconds after the `AdapterChanges` object was created, which is shortly before
    the load starts.
    """
    seconds: float
    status: int
    error: str = ""


@dataclass(slots=True)
class AdapterChanges:
    """Exchanges an adapter, or loads and unloads adapters, while a load runs. Records every change
    in `done`.
    """

    endpoint: Endpoint
    """The server's address, with the admin key for loading adapters."""
    done: list[AdapterChange] = field(default_factory=list[AdapterChange])
    _loaded: bool = False
    _began: float = field(default_factory=time.monotonic)

    async def begin(self, path: str) -> None:
        """Load the adapter in the folder `path`, which `swap` later replaces by another version. Raises
        `TargetError` if the server refuses it.
        """
        change = await self._load(path, in_place=False)
        if change.status != 200:
            raise TargetError(
                f"the server at {self.endpoint.url} did not load the adapter {path} (status "
                f"{change.status}): {change.error}"
            )

    async def swap(self, path: str, progress: Callable[[], LoadProgress], requests: int) -> None:
        """Wait until half of the `requests` have ended, then replace the adapter by the version in `path`."""
        while progress().ended < requests // 2:
            await asyncio.sleep(POLL)
        await self._load(path, in_place=True)

    async def churn(
        self, paths: Sequence[str], progress: Callable[[], LoadProgress], requests: int, every: float
    ) -> None:
        """Load an adapter from `paths` and unload it after `every` seconds, again and again until all
        `requests` have ended.
        """
        turn = 0
        while progress().ended < requests:
            await self._load(paths[turn % len(paths)], in_place=False)
            await asyncio.sleep(every)
            await self._unload()
            turn += 1

    async def leave(self) -> None:
        """Unload the adapter that the benchmark has loaded during the run, if it is still loaded."""
        if self._loaded:
            await self._unload()

    async def _load(self, path: str, in_place: bool) -> AdapterChange:
        body = {"lora_name": CHANGED, "lora_path": path} | ({"load_inplace": True} if in_place else {})
        change = await self._change("load", body)
        self._loaded = self._loaded or change.status == 200
        return change

    async def _unload(self) -> None:
        await self._change("unload", {"lora_name": CHANGED})
        self._loaded = False

    async def _change(self, action: str, body: Mapping[str, object]) -> AdapterChange:
        began = time.monotonic()
        status, content = await asyncio.to_thread(self.endpoint.call, f"/v1/{action}_lora_adapter", body)
        seconds = time.monotonic() - began
        error = "" if status == 200 else content.decode(errors="replace")[:200]
        change = AdapterChange(
            action, CHANGED, round(began - self._began, 3), round(seconds, 3), status, error
        )
        self.done.append(change)
        return change
