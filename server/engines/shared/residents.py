"""Which adapters are resident in an engine, what uses each, and the order of loads and unloads."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection

from adapters.errors import FileRefusedError, passing_cause
from adapters.lora.manifest import Adapter
from server.errors import (
    AdapterNotLoadedError,
    AdapterRefusedError,
    AdapterUnavailableError,
    EngineDeadError,
    EngineError,
)
from server.request import AdapterMix


class Residents:
    """Loads and unloads one adapter at a time each, and refuses requests for what is not resident.

    `bring_in` makes an adapter resident and probes it; `drop` has the engine forget a digest, whether it was
    brought in wholly, in part or not at all. `drop` begins its work when it is called, not when awaited.
    """

    def __init__(
        self,
        most: int,
        bring_in: Callable[[Adapter], Awaitable[None]],
        drop: Callable[[str], asyncio.Future[None]],
    ) -> None:
        self._most = most
        self._bring_in = bring_in
        self._drop = drop
        self._users: Counter[str] = Counter()
        self._drained: dict[str, asyncio.Event] = {}
        self._held: set[str] = set()
        self._changing = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._loading = asyncio.Lock()
        self.open = frozenset[str]()
        """Digests that requests may name. Replaced, never changed, since any thread may read it."""

    @property
    def held(self) -> Collection[str]:
        """See `OpenAdapters.held`."""
        return self._held

    def in_use(self, digest: str) -> bool:
        """See `OpenAdapters.in_use`."""
        return self._users[digest] > 0

    async def load(self, adapter: Adapter) -> None:
        """See `Engine.load`."""
        digest = adapter.digest
        async with self._changing[digest]:
            if digest in self.open:
                return
            if len(self._held) >= self._most:
                raise AdapterRefusedError(
                    f"{adapter.full_name}: {len(self._held)} adapters are resident, the most this engine "
                    "holds; unload one first"
                )
            self._held.add(digest)
            try:
                async with self._loading:
                    await self._bring_in(adapter)
            except BaseException as error:
                # Follows the insertion, whether that has run or not, so that nothing is left of it.
                self._forget(digest).add_done_callback(_seen)
                refusal = _refusal(error)
                if refusal is None:
                    raise
                raise _refusal_kind(error)(f"{adapter.full_name}: {refusal}") from error
            self.open |= {digest}

    async def unload(self, digest: str) -> None:
        """See `Engine.unload`."""
        async with self._changing[digest]:
            if digest not in self.open:
                return
            self.open -= {digest}
            if self._users[digest]:
                drained = self._drained[digest] = asyncio.Event()
                try:
                    await drained.wait()
                except asyncio.CancelledError:
                    self._drained.pop(digest, None)
                    self.open |= {digest}
                    raise
            await asyncio.shield(self._forget(digest))

    def take(self, adapter_mix: AdapterMix, *, probe: bool = False) -> None:
        """A request begins to use `adapter_mix`; `AdapterNotLoadedError` if part of it is not open."""
        for digest, _ in adapter_mix:
            if digest not in self.open and not probe:
                raise AdapterNotLoadedError(f"adapter {digest[:19]} is not loaded")
        for digest, _ in adapter_mix:
            self._users[digest] += 1

    def give_back(self, adapter_mix: AdapterMix) -> None:
        """The request is done with them."""
        for digest, _ in adapter_mix:
            self._users[digest] -= 1
            if not self._users[digest]:
                del self._users[digest]
                drained = self._drained.pop(digest, None)
                if drained is not None:
                    drained.set()

    def abandon(self) -> None:
        """No request runs any more, even where its reader has not noticed: unloads need not wait."""
        for drained in self._drained.values():
            drained.set()
        self._drained.clear()

    def _forget(self, digest: str) -> asyncio.Future[None]:
        self._held.discard(digest)
        return self._drop(digest)


def _seen(dropped: asyncio.Future[None]) -> None:
    """A dead engine cannot forget; the error that led here says so already."""
    if not dropped.cancelled():
        dropped.exception()


def _refusal_kind(error: BaseException) -> type[EngineError]:
    """What a load that failed is for a request: files to be repaired, a moment to wait, or a refusal."""
    if passing_cause(error) is not None:
        return AdapterNotLoadedError
    return AdapterUnavailableError if isinstance(error, FileRefusedError | OSError) else AdapterRefusedError


def _refusal(error: BaseException) -> str | None:
    """Why an adapter cannot be loaded, naming no folder of the host; None where the fault is not its own."""
    if isinstance(error, FileRefusedError):
        return error.public
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, EngineError) and not isinstance(error, EngineDeadError):
        return f"its probe failed: {error}"
    return None
