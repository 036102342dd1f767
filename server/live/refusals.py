"""Handles adapters that pass all checks on disk but that the engine cannot load.

An adapter counts as accepted if the registry or the ledger has recorded it, if it was active once, or if the
engine has loaded it before. An accepted adapter keeps its name, and requests for it get 503 as long as the
engine refuses it. An adapter that is not accepted is no longer served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from adapters.errors import AdapterRejectedError, UnknownAdapterError
from adapters.lora.manifest import Adapter
from adapters.registry.listing import VersionFolder
from adapters.registry.pointers import AliasPointers, PointersError, active_versions
from adapters.registry.recovery import accepted_contents
from server.errors import AdapterNotLoadedError, AdapterRefusedError, EngineError, NoSlotError
from server.live.runtime import Runtime

log = logging.getLogger("oneseek.registry")


class EngineRefusals:
    """Stops serving the adapters that the engine of one base refuses. Use it on the event loop only."""

    def __init__(self, runtime: Runtime, home: Path, reroute: Callable[[], Awaitable[None]]) -> None:
        self._runtime = runtime
        self._home = home
        self._reroute = reroute
        self._digests: set[str] = set()
        """Digests of new adapters that the engine has refused."""
        runtime.residency.on_refusal = self.take_name

    async def take_name(self, adapter: Adapter) -> bool:
        """Stop serving an adapter that the engine refuses, unless it was accepted before. Returns True if it
        is no longer served.
        """
        pointers = await asyncio.to_thread(_pointers, self._home)
        if await asyncio.to_thread(was_accepted, self._home, adapter, pointers):
            return False
        served, routed = self._runtime.served, self._runtime.served.routing_state
        for one in [one for one in served.adapters() if one.digest == adapter.digest]:
            if not self._remove(one, pointers or AliasPointers()):
                return False
        self._digests.add(adapter.digest)
        if served.routing_state != routed:
            await self._reroute()
        return True

    async def admits(self, adapter: Adapter) -> bool:
        """Return False if the engine refuses a new adapter. If no slot is free to try it, return True."""
        if adapter.digest in self._digests:
            return False
        residency, slots = self._runtime.residency, self._runtime.info.max_adapters
        if slots and not residency.has_free_slot:
            return True
        pointers = await asyncio.to_thread(_pointers, self._home)
        if await asyncio.to_thread(was_accepted, self._home, adapter, pointers):
            return True
        if not slots:
            log.warning(
                "adapter %s is not served, because the engine was started with max_adapters 0; "
                "raise this setting and restart the server",
                adapter.full_name,
            )
            self._digests.add(adapter.digest)
            return False
        try:
            await residency.ensure(adapter)
        except NoSlotError:
            return True
        except AdapterRefusedError:
            return adapter.digest not in self._digests
        except (AdapterNotLoadedError, EngineError):
            return True  # its first request finds out
        return True

    def _remove(self, adapter: Adapter, pointers: AliasPointers) -> bool:
        """Stop serving one version. Returns False if its name must stay, because the settings use it for a
        language or a short name.
        """
        served = self._runtime.served
        others = [one for one in served.versions(adapter.alias) if one != adapter]
        try:
            if others and served.active(adapter.alias) == adapter:
                found, _ = active_versions(others, pointers)
                served.activate(adapter.alias, found[adapter.alias.lower()])
            served.remove(adapter.full_name)
        except UnknownAdapterError:
            return True  # somebody else was faster
        except AdapterRejectedError as error:
            log.error(
                "the engine cannot load adapter %s, and its name stays in the list of served models; "
                "requests for this adapter get 503. The name cannot be removed: %s",
                adapter.full_name,
                error,
            )
            return False
        return True


def was_accepted(home: Path, adapter: Adapter, pointers: AliasPointers | None) -> bool:
    """True if the registry or the ledger has recorded the adapter, or if it was active once.

    Also True if `pointers` is None, because the active versions cannot be read.
    """
    if pointers is None or adapter.version.lower() in pointers.state(adapter.alias).history:
        return True
    if adapter.place != "registry":
        return False
    if VersionFolder.of(adapter.path).recorded_digest is not None:
        return True
    return accepted_contents(home / "ledger", adapter.full_name).digest is not None


def _pointers(home: Path) -> AliasPointers | None:
    try:
        return AliasPointers.read(home / "registry")
    except PointersError:
        return None
