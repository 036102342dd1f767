"""Adapters that are loaded and unloaded while the server runs, in memory alone: nothing reaches the disk.

A loaded adapter is checked as one that the registry takes, made resident and probed before any request can
name it; an unloaded one can be named no longer at once, and leaves the engine when its last request ends.
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
from server.live.follower import FollowOptions, RegistryFollower
from server.live.roots import PathMissingError, PathRefusedError, Roots
from server.live.runtime import Runtime

log = logging.getLogger("oneseek.admin")

PASSING_SECONDS = 5
"""Seconds after which to ask again if a limit of the system was reached."""
_FOR_GOOD = {"x-should-retry": "false"}
PATH = "lora_path"
NAME = "lora_name"


class LoraLoading:
    """The adapters of one server that clients bring and take away."""

    def __init__(self, runtime: Runtime, follower: RegistryFollower, roots: Roots) -> None:
        self._runtime = runtime
        self._served = runtime.served
        self._follower = follower
        self._options = follower.options
        self._roots = roots

    async def load(self, name: str, path: str, *, in_place: bool = False) -> Adapter:
        """Serve the adapter in the folder `path` under `name`: an alias, or `alias@version`.

        With `in_place`, one that was loaded under that name gives way to it. Raises `ApiError`,
        `AdapterRefusedError` and `AdapterNotLoadedError`; then nothing has changed.
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
            languages = self._served.languages()
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
            if self._served.languages() != languages:
                await self._follower.reroute()
            return adapter

    async def unload(self, name: str) -> Adapter:
        """Serve what was loaded under `name` no longer. Raises as `load` does."""
        async with self._follower.change_lock:
            adapter = self._find_loaded(name)
            others = [one for one in self._served.versions(adapter.alias) if one != adapter]
            languages = self._served.languages()
            if others and self._served.active(adapter.alias) == adapter:
                await self._runtime.residency.ensure(others[-1])
                self._served.activate(adapter.alias, others[-1].version)
            try:
                self._served.remove(adapter.full_name)
            except AdapterRejectedError as error:
                raise bad_field(NAME, f"{error}.", code="adapter_in_use") from None
            del self._follower.loaded[adapter.full_name.lower()]
            self._follower.unload(adapter)
            if self._served.languages() != languages:
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
        """What `name` stands for now, where it was loaded and may be replaced; None where it is free."""
        found = _find(self._served, f"{alias}@{version}" if version else alias)
        if found is None and version is not None:
            other = _find(self._served, alias)
            if other is not None and other.alias.lower() != alias.lower():
                raise bad_field(NAME, f"{alias} is a short name of {other.alias}.", code="adapter_exists")
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
        """What was loaded under `name`, as its full name or as the only one of its alias."""
        key = name.strip().lower()
        found = [one for full, one in self._follower.loaded.items() if key in (full, one.alias.lower())]
        if len(found) == 1:
            return found[0]
        if found:
            listed = " or ".join(one.full_name for one in found)
            raise bad_field(NAME, f"{name}: say which version, {listed}.", code="ambiguous_adapter")
        other = _find(self._served, name)
        if other is None:
            message = f"The lora adapter '{name[:128]}' cannot be found."
            raise bad_field(NAME, message, code="adapter_not_found", status=404)
        kept = other.path.is_relative_to(self._options.home / "registry")
        remedy = (
            f"is a version of the registry: POST /admin/adapters/{other.full_name}/retire takes it out, and "
            "a new version takes its place with promote"
            if kept
            else "was found when the server started: take it out of settings or folder, and start again"
        )
        raise bad_field(NAME, f"{other.full_name} {remedy}.", code="adapter_not_loaded_here")

    async def _check(self, folder: Path, alias: str, version: str | None) -> Adapter:
        """The adapter in `folder` under its name, every number of it read, and known where that is asked."""
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
            raise bad_field(NAME, f"{adapter.full_name} is served already.", code="adapter_exists")
        if self._options.provenance is not None:
            await require_known(self._options.provenance, adapter, PATH)
        return self._modest(replace(adapter, place="loaded"))

    def _versions(self, alias: str) -> list[str]:
        try:
            return [one.version for one in self._served.versions(alias)]
        except UnknownAdapterError:
            return []

    def _modest(self, adapter: Adapter) -> Adapter:
        """Without its language where another alias speaks that: loading changes no other's answers."""
        spoken, contested = self._served.languages(), self._served.contested_languages()
        code = adapter.language or ""
        aliases = {alias.lower() for alias in (*contested.get(code, ()), *filter(None, [spoken.get(code)]))}
        others = aliases - {adapter.alias.lower()}
        if not others and not self._options.neighbours.speak(code):
            return adapter
        log.info("%s is asked for by name alone: another alias speaks %s", adapter.full_name, code)
        return replace(adapter, language=None)

    async def _admit(self, adapter: Adapter) -> None:
        """Make it resident; where that does not succeed in time, what may still come in leaves again."""
        try:
            await self._runtime.residency.ensure(adapter)
        except AdapterNotLoadedError:
            self._follower.unload(adapter)
            raise
        except AdapterRefusedError as error:
            raise describe_engine_refusal(error, PATH) from None


async def open_folder(roots: Roots, path: str, field: str) -> Path:
    """The folder that a client's `path` names. Raises `ApiError` by the name of its field."""
    try:
        return await asyncio.to_thread(roots.open, path)
    except PathMissingError as error:
        raise bad_field(field, f"{field}: {error}.", code="path_not_found", status=404) from None
    except PathRefusedError as error:
        raise bad_field(field, f"{field}: {error}.", code="path_refused") from None


async def serving_base(served: ServedAdapters, options: FollowOptions) -> Base:
    """The base that adapters are checked against, its digest as it was at the start."""
    try:
        shape = await asyncio.to_thread(ModelShape.read, options.base.path)
    except FileRefusedError as error:
        raise describe_refusal(error, None) from None
    known = await asyncio.to_thread(base_names, options.base.path, options.base.name)
    return Base(name=served.base_name, digest=served.base_digest, shape=shape, names=known)


async def require_known(provenance: Callable[[], Provenance | None], adapter: Adapter, field: str) -> None:
    """Raise `ApiError` if the ledger does not know the adapter."""
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
            f"{field}: the ledger does not know {adapter.digest}, and require_provenance is on. Add it to "
            "the registry, which records it: POST /admin/adapters."
        )
        raise bad_field(field, message, code="adapter_unrecorded") from None


def describe_refusal(error: FileRefusedError, field: str | None) -> ApiError:
    """An adapter's files that are not what can be served, in words that name no folder of the host."""
    if (passing := passing_cause(error)) is not None:
        return unwritable(passing)
    return bad_field(field, error.public, code="adapter_rejected")


def unusable(error: FileRefusedError) -> ApiError:
    """A registry or a ledger that cannot be relied on until it is repaired; asking again changes nothing."""
    cause = passing_cause(error) or error.__cause__
    if isinstance(cause, OSError) and (cause.errno in STORAGE or passing_cause(cause) is not None):
        return unwritable(cause)
    headers = {"x-should-retry": "false"}
    reply = ErrorReply(503, error.public, type="server_error", code="registry_unusable", headers=headers)
    return ApiError(reply)


STORAGE = FULL | {errno.EROFS, errno.EACCES, errno.EPERM}


def unwritable(error: OSError) -> ApiError:
    """The disk does not take a change, and nothing has changed. The host's folders stay in the log."""
    log.error("a change is not written: %s", error)
    if error.errno in FULL:
        message = "The server's disk is full, and nothing has changed. Free some space and ask again."
        reply = ErrorReply(507, message, type="server_error", code="storage_full", headers=_FOR_GOOD)
    elif passing_cause(error) is not None:
        message = "The server has no file descriptor or memory left for this. Ask again in a moment."
        headers = {"Retry-After": str(PASSING_SECONDS)}
        reply = ErrorReply(503, message, type="server_error", code="storage_busy", headers=headers)
    else:
        why = (error.strerror or type(error).__name__).lower()
        message = f"The server's home cannot be written ({why}). Nothing has changed; make it writable."
        reply = ErrorReply(503, message, type="server_error", code="storage_read_only", headers=_FOR_GOOD)
    return ApiError(reply)


def describe_engine_refusal(error: AdapterRefusedError, field: str | None) -> ApiError:
    """An adapter that the engine does not take; an engine's reasons name no folder of the host."""
    return bad_field(field, f"The engine refuses it: {error}.", code="adapter_refused")


def _find(served: ServedAdapters, name: str) -> Adapter | None:
    try:
        return served.resolve(name)
    except UnknownAdapterError:
        return None
