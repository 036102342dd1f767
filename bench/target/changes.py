"""Change a server's adapters during a run, through vLLM's two endpoints, which OneSeek has too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.load.records import LoadProgress
from bench.target.http import Endpoint, TargetError

POLL = 0.05
CHANGED = "bench-changed"
"""Name under which the suite loads and unloads an adapter."""


@dataclass(frozen=True, slots=True)
class AdapterChange:
    """One change of the server's adapters, and the server's answer."""

    action: str
    name: str
    at: float
    """Time of the change, in seconds after the changes began."""
    seconds: float
    status: int
    error: str = ""


@dataclass(slots=True)
class AdapterChanges:
    """Exchanges one adapter, or loads and unloads adapters, while a load runs. Records every change."""

    endpoint: Endpoint
    """The server's address, with an admin key."""
    done: list[AdapterChange] = field(default_factory=list[AdapterChange])
    _loaded: bool = False
    _began: float = field(default_factory=time.monotonic)

    async def begin(self, path: str) -> None:
        """Load the first version. Raises `TargetError` if the server refuses it."""
        change = await self._load(path, in_place=False)
        if change.status != 200:
            raise TargetError(
                f"{self.endpoint.url} does not load {path}: status {change.status}: {change.error}"
            )

    async def swap(self, path: str, progress: Callable[[], LoadProgress], requests: int) -> None:
        """Replace the first version by the one in `path` when half of the `requests` have ended."""
        while progress().ended < requests // 2:
            await asyncio.sleep(POLL)
        await self._load(path, in_place=True)

    async def churn(
        self, paths: Sequence[str], progress: Callable[[], LoadProgress], requests: int, every: float
    ) -> None:
        """Load and unload adapters one after the other, every `every` seconds, until the load ends."""
        turn = 0
        while progress().ended < requests:
            await self._load(paths[turn % len(paths)], in_place=False)
            await asyncio.sleep(every)
            await self._unload()
            turn += 1

    async def leave(self) -> None:
        """Unload the adapters that are still loaded."""
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
