"""Loads and unloads adapters while the server runs, in memory only: nothing is written to disk.

An adapter passes the same checks as one that is added to the registry. It is loaded into the engine and
tested before requests can use it. An unloaded adapter is unavailable at once, and leaves the engine when its
last request ends.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from adapters import names
from adapters.errors import (
    AdapterRejectedError,
    FileRefusedError,
    LedgerError,
    UnknownAdapterError,
    passing_cause,
)
from adapters.files.full import FULL
from adapters.ledger.provenance import Provenance
from adapters.lora.base_name import base_names
from adapters.lora.manifest import Adapter
from adapters.lora.shape_check import ModelShape
from adapters.registry.intake import Base, check_adapter
from adapters.registry.served import ServedAdapters
from server.errors import AdapterNotLoadedError, AdapterRefusedError, ApiError, ErrorReply, bad_field
from server.live.follow_options import FollowOptions
from server.live.follower import RegistryFollower
from server.live.roots import PathMissingError, PathRefusedError, Roots
from server.live.runtime import Runtime

log = logging.getLogger("oneseek.admin")

PASSING_SECONDS = 5
"""Value of `Retry-After` in seconds if the server is out of file descriptors or memory."""
_FOR_GOOD = {"x-should-retry": "false"}
PATH = "lora_path"
NAME = "lora_name"


class LoraLoading:
    """Loads and unloads adapters of one base for clients."""

    def __init__(self, runtime: Runtime, follower: RegistryFollower, roots: Roots) -> None:
        self._runtime = runtime
        self._served = runtime.served
        self._follower = follower
        self._options = follower.options
        self._roots = roots

    async def load(self, name: str, path: str, *, in_place: bool = False) -> Adapter:
        """Serve the adapter in the folder `path` under `name`: an alias, or `alias@version`.

        With `in_place`, the adapter replaces an earlier one that was loaded under that name. Raises
        `ApiError`, `AdapterRefusedError` and `AdapterNotLoadedError`; then nothing has changed.
        """
        alias, version = self._names(name)
        async with self._follower.change_lock:
            self._check_alias(alias)
            present = self._present(name, alias, version, in_place=in_place)
            folder = await open_folder(self._roots, path, PATH)
            version = version or (present.version if present is not None else None)
            adapter = await self._check(folder, alias, version)
            if present is not None and present.digest == adapter.digest:
                return present
            await self._admit(adapter)
            routed = self._served.routing_state
            if present is None:
                try:
                    self._served.add(adapter)
                except AdapterRejectedError:  # another base has taken the alias meanwhile
                    self._follower.unload(adapter)
                    self._check_alias(alias)
                    raise
            else:
                self._served.replace(adapter)
            self._follower.loaded[adapter.full_name.lower()] = adapter
            if present is not None:
                self._follower.unload(present)
            if self._served.routing_state != routed:
                await self._follower.reroute()
            return adapter

    async def unload(self, name: str) -> Adapter:
        """Unload the adapter that was loaded over HTTP under `name`. Raises `ApiError`, as `load` does."""
        async with self._follower.change_lock:
            adapter = self._find_loaded(name)
            others = [one for one in self._served.versions(adapter.alias) if one != adapter]
            routed = self._served.routing_state
            if others and self._served.active(adapter.alias) == adapter:
                await self._runtime.residency.ensure(others[-1])
                self._served.activate(adapter.alias, others[-1].version)
            try:
                self._served.remove(adapter.full_name)
            except AdapterRejectedError as error:
                raise bad_field(NAME, f"{error}.", code="adapter_in_use") from None
            del self._follower.loaded[adapter.full_name.lower()]
            self._follower.unload(adapter)
            if self._served.routing_state != routed:
                await self._follower.reroute()
            return adapter

    def _names(self, name: str) -> tuple[str, str | None]:
        if self._served.is_base(name):
            message = f"The lora adapter '{name[:128]}' conflicts with a served base model."
            raise bad_field(NAME, message, code="adapter_exists")
        try:
            return names.split_name(name)
        except ValueError as error:
            raise bad_field(NAME, f"{NAME}: {error}.", code="invalid_value") from None

    def _check_alias(self, alias: str) -> None:
        try:
            self._served.check_alias(alias)
        except AdapterRejectedError as error:
            raise bad_field(NAME, f"{NAME}: {error}.", code="adapter_exists") from None

    def _present(self, name: str, alias: str, version: str | None, *, in_place: bool) -> Adapter | None:
        """Return the adapter called `name` that was loaded over HTTP and may be replaced; None if the name is
        free.
        """
        found = _find(self._served, f"{alias}@{version}" if version else alias)
        if found is None and version is not None:
            other = _find(self._served, alias)
            if other is not None and other.alias.lower() != alias.lower():
                raise bad_field(
                    NAME,
                    f"{alias} is already a short name of the adapter {other.alias}; choose another name.",
                    code="adapter_exists",
                )
            return None
        if found is None:
            return None
        if not in_place:
            message = (
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in "
                "place, set 'load_inplace' to True."
            )
            raise bad_field(NAME, message, code="adapter_exists")
        return self._find_loaded(name)

    def _find_loaded(self, name: str) -> Adapter:
        """Return the adapter that was loaded over HTTP under `name`: its full name, or an alias with only one
        version.
        """
        key = name.strip().lower()
        found = [one for full, one in self._follower.loaded.items() if key in (full, one.alias.lower())]
        if len(found) == 1:
            return found[0]
        if found:
            listed = " or ".join(one.full_name for one in found)
            raise bad_field(
                NAME,
                f"Several versions of the adapter {name} are loaded; name one of them: {listed}.",
                code="ambiguous_adapter",
            )
        other = _find(self._served, name)
        if other is None:
            message = f"The lora adapter '{name[:128]}' cannot be found."
            raise bad_field(NAME, message, code="adapter_not_found", status=404)
        kept = other.path.is_relative_to(self._options.home / "registry")
        remedy = (
            f"is a version of the registry; retire it with POST /admin/adapters/{other.full_name}/retire, or "
            "promote another version"
            if kept
            else "was found when the server started; remove it from the settings or its folder, and restart"
        )
        raise bad_field(NAME, f"{other.full_name} {remedy}.", code="adapter_not_loaded_here")

    async def _check(self, folder: Path, alias: str, version: str | None) -> Adapter:
        """Check the adapter in `folder` in full, and against the ledger if `require_provenance` is set."""
        base = await serving_base(self._served, self._options)
        try:
            intake = await asyncio.to_thread(check_adapter, folder, base, alias=alias, version=version)
        except FileRefusedError as error:
            raise describe_refusal(error, PATH) from None
        except OSError as error:
            raise unwritable(error) from None
        if intake.given_version is None:
            intake = intake.with_version(names.next_version(self._versions(alias)))
        adapter = intake.source
        other = _find(self._served, adapter.full_name)
        if version is None and other is not None:
            raise bad_field(
                NAME,
                f"The adapter {adapter.full_name} is already served; choose another name.",
                code="adapter_exists",
            )
        if self._options.provenance is not None:
            await require_known(self._options.provenance, adapter, PATH)
        return self._modest(replace(adapter, place="loaded"))

    def _versions(self, alias: str) -> list[str]:
        try:
            return [one.version for one in self._served.versions(alias)]
        except UnknownAdapterError:
            return []

    def _modest(self, adapter: Adapter) -> Adapter:
        """Return `adapter`, without its language if another alias has it, so that loading does not change
        routing.
        """
        spoken, contested = self._served.languages(), self._served.contested_languages()
        code = adapter.language or ""
        aliases = {alias.lower() for alias in (*contested.get(code, ()), *filter(None, [spoken.get(code)]))}
        others = aliases - {adapter.alias.lower()}
        if not others and not self._options.neighbours.speak(code):
            return adapter
        log.info(
            "adapter %s answers only requests that name it: another alias already answers the language %s",
            adapter.full_name,
            code,
        )
        return replace(adapter, language=None)

    async def _admit(self, adapter: Adapter) -> None:
        """Load the adapter into the engine. If that takes too long, raise an error, and unload it once it is
        loaded.
        """
        try:
            await self._runtime.residency.ensure(adapter)
        except AdapterNotLoadedError:
            self._follower.unload(adapter)
            raise
        except AdapterRefusedError as error:
            raise describe_engine_refusal(error, PATH) from None


async def open_folder(roots: Roots, path: str, field: str) -> Path:
    """Resolve a client's `path` to an adapter's folder. Raises `ApiError`, which names the `field`."""
    try:
        return await asyncio.to_thread(roots.open, path)
    except PathMissingError as error:
        raise bad_field(field, f"{field}: {error}.", code="path_not_found", status=404) from None
    except PathRefusedError as error:
        raise bad_field(field, f"{field}: {error}.", code="path_refused") from None


async def serving_base(served: ServedAdapters, options: FollowOptions) -> Base:
    """Return the base to check adapters against, with the digest that it had when the server started."""
    try:
        shape = await asyncio.to_thread(ModelShape.read, options.base.path)
    except FileRefusedError as error:
        raise describe_refusal(error, None) from None
    known = await asyncio.to_thread(base_names, options.base.path, options.base.name)
    return Base(name=served.base_name, digest=served.base_digest, shape=shape, names=known)


async def require_known(provenance: Callable[[], Provenance | None], adapter: Adapter, field: str) -> None:
    """Raise `ApiError` if the adapter is not in the ledger."""
    try:
        recorded = await asyncio.to_thread(provenance)
    except LedgerError as error:
        raise unusable(error) from None
    if recorded is None:
        return
    try:
        recorded.require(adapter)
    except AdapterRejectedError:
        message = (
            f"{field}: {adapter.digest} is not in the ledger, and require_provenance is on. Add it to the "
            "registry first, with POST /admin/adapters."
        )
        raise bad_field(field, message, code="adapter_unrecorded") from None


def describe_refusal(error: FileRefusedError, field: str | None) -> ApiError:
    """Return the error reply for an invalid adapter, without paths of the host."""
    if (passing := passing_cause(error)) is not None:
        return unwritable(passing)
    return bad_field(field, error.public, code="adapter_rejected")


def unusable(error: FileRefusedError) -> ApiError:
    """Return the error reply for a damaged registry or ledger, which has to be repaired before a retry."""
    cause = passing_cause(error) or error.__cause__
    if isinstance(cause, OSError) and (cause.errno in STORAGE or passing_cause(cause) is not None):
        return unwritable(cause)
    headers = {"x-should-retry": "false"}
    reply = ErrorReply(503, error.public, type="server_error", code="registry_unusable", headers=headers)
    return ApiError(reply)


STORAGE = FULL | {errno.EROFS, errno.EACCES, errno.EPERM}


def unwritable(error: OSError) -> ApiError:
    """Return the error reply if a change cannot be written to disk. Paths of the host go to the log only."""
    log.error("a change to the adapters was refused, because it could not be written to disk: %s", error)
    if error.errno in FULL:
        message = "The server's disk is full. Nothing has changed. Free some space and retry."
        reply = ErrorReply(507, message, type="server_error", code="storage_full", headers=_FOR_GOOD)
    elif passing_cause(error) is not None:
        message = "The server has run out of file descriptors or memory. Retry shortly."
        headers = {"Retry-After": str(PASSING_SECONDS)}
        reply = ErrorReply(503, message, type="server_error", code="storage_busy", headers=headers)
    else:
        why = (error.strerror or type(error).__name__).lower()
        message = f"The server's home folder is not writable ({why}). Nothing has changed. Make it writable."
        reply = ErrorReply(503, message, type="server_error", code="storage_read_only", headers=_FOR_GOOD)
    return ApiError(reply)


def describe_engine_refusal(error: AdapterRefusedError, field: str | None) -> ApiError:
    """Return the error reply for an adapter that the engine cannot load. Its message has no paths of the
    host.
    """
    return bad_field(field, f"The engine cannot load the adapter: {error}.", code="adapter_refused")


def _find(served: ServedAdapters, name: str) -> Adapter | None:
    try:
        return served.resolve(name)
    except UnknownAdapterError:
        return None
