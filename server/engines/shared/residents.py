"""Keeps the adapters of an engine: loads them in order, counts the requests that use each, and unloads
them.
"""

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
    NoSlotError,
)
from server.request import AdapterMix


class Residents:
    """Loads adapters into an engine one after another, and unloads each once no request uses it. Refuses
    requests for adapters that are not loaded.

    `most` is the engine's number of adapter slots. `bring_in` loads an adapter into the engine and tests it.
    `drop` removes an adapter from the engine, even if it was loaded only in part; the removal begins when
    `drop` is called, not when its result is awaited.
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
        """Digests of the adapters that requests may use. The set is replaced, never changed, so any thread
        may read it.
        """

    @property
    def held(self) -> Collection[str]:
        """Digests of the adapters that take a slot of the engine, including those that are being loaded or
        unloaded. See `OpenAdapters.held`.
        """
        return self._held

    def in_use(self, digest: str) -> bool:
        """True if a running or waiting request uses the adapter. See `OpenAdapters.in_use`."""
        return self._users[digest] > 0

    async def load(self, adapter: Adapter) -> None:
        """Load `adapter` into a slot of the engine, and test it. See `Engine.load`."""
        digest = adapter.digest
        async with self._changing[digest]:
            if digest in self.open:
                return
            if len(self._held) >= self._most:
                raise NoSlotError(
                    f"{adapter.full_name}: all {len(self._held)} adapter slots of this engine are in use; "
                    "unload an adapter first"
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
                raise _refusal_kind(error)(
                    f"the adapter {adapter.full_name} is refused: {refusal}"
                ) from error
            self.open |= {digest}

    async def unload(self, digest: str) -> None:
        """Unload the adapter `digest` once no request uses it. See `Engine.unload`."""
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
        """Count a request as a user of the adapters in `adapter_mix`, so that they stay loaded. Raises
        `AdapterNotLoadedError` if one of the adapters is not loaded.
        """
        for digest, _ in adapter_mix:
            if digest not in self.open and not probe:
                raise AdapterNotLoadedError(f"adapter {digest[:19]} is not loaded; load it and retry")
        for digest, _ in adapter_mix:
            self._users[digest] += 1

    def give_back(self, adapter_mix: AdapterMix) -> None:
        """Record that a request no longer uses the adapters in `adapter_mix`, so that they can be
        unloaded.
        """
        for digest, _ in adapter_mix:
            self._users[digest] -= 1
            if not self._users[digest]:
                del self._users[digest]
                drained = self._drained.pop(digest, None)
                if drained is not None:
                    drained.set()

    def abandon(self) -> None:
        """Record that the engine runs no requests any more, even if a client still reads an answer. Pending
        unloads then go on.
        """
        for drained in self._drained.values():
            drained.set()
        self._drained.clear()

    def _forget(self, digest: str) -> asyncio.Future[None]:
        self._held.discard(digest)
        return self._drop(digest)


def _seen(dropped: asyncio.Future[None]) -> None:
    """Mark the error of an adapter's removal as seen, so that asyncio does not log it. A removal fails if the
    engine is dead, which was reported before.
    """
    if not dropped.cancelled():
        dropped.exception()


def _refusal_kind(error: BaseException) -> type[EngineError]:
    """Return the type of the error for requests whose adapter could not be loaded because of `error`."""
    if passing_cause(error) is not None:
        return AdapterNotLoadedError
    return AdapterUnavailableError if isinstance(error, FileRefusedError | OSError) else AdapterRefusedError


def _refusal(error: BaseException) -> str | None:
    """Return why an adapter cannot be loaded, without any path of the host; None if the adapter is not at
    fault.
    """
    if isinstance(error, FileRefusedError):
        return error.public
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, EngineError) and not isinstance(error, EngineDeadError):
        return f"a test request with the adapter failed: {error}"
    return None
