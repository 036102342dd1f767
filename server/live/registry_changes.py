"""The registry on disk, changed by the server that serves it: each change is live here when it is answered.

Whatever changes what an alias stands for is loaded into the engine first, so that a version that cannot be
served is refused before anything has changed. Other processes get it by following the registry.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from adapters import names
from adapters.errors import (
    AdapterError,
    AdapterRejectedError,
    FileRefusedError,
    RegistryError,
    UnknownAdapterError,
)
from adapters.lora.manifest import Adapter
from adapters.registry.listing import RegistryListing, VersionFolder
from adapters.registry.registry import AddResult, AliasMove, Registry
from adapters.registry.verify import VersionVerdict, verify_version
from adapters.remote.url import is_url
from server.errors import AdapterNotLoadedError, AdapterRefusedError, ApiError, ErrorReply, bad_field
from server.live.bases.neighbours import Neighbour
from server.live.fetching import AdapterFetching, Gone
from server.live.follower import RegistryFollower
from server.live.loading import (
    describe_engine_refusal,
    describe_refusal,
    open_folder,
    require_known,
    serving_base,
    unusable,
    unwritable,
)
from server.live.roots import Roots
from server.live.runtime import Runtime

ChangeT = TypeVar("ChangeT")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeResult:
    """What a change came to."""

    name: str
    """Full name of the version that it is about."""
    digest: str | None
    live: bool
    """Whether this server serves accordingly; the log says why not."""
    before: str | None = None
    """Full name of what the alias stood for."""
    new: bool | None = None
    """Whether a version was added that was not there."""
    active: bool | None = None
    """Whether its alias stands for it."""
    stands: str | None = None
    """Full name of what the alias of an added version stands for."""
    base_recorded: bool = True
    """False if nothing but its shapes told that an added version is for this base."""
    contested: tuple[str, ...] = ()
    """Aliases that speak its language, where they are several, so that none is chosen for it."""


class RegistryChanges:
    """The changes that one server makes to the registry on disk."""

    def __init__(
        self,
        runtime: Runtime,
        follower: RegistryFollower,
        registry: Registry,
        roots: Roots,
        fetching: AdapterFetching,
    ) -> None:
        self._runtime = runtime
        self._served = runtime.served
        self._follower = follower
        self._options = follower.options
        self.registry = registry
        self._roots = roots
        self._fetching = fetching

    async def listing(self) -> RegistryListing:
        """What the registry holds at this moment."""
        return await self.ask(self.registry.listing)

    async def add(
        self,
        path: str,
        *,
        alias: str | None = None,
        version: str | None = None,
        language: str | None = None,
        digest: str | None = None,
        field: str = "path",
        gone: Gone,
    ) -> ChangeResult:
        """Make the folder or URL `path` a version, by the names that are passed, recorded, or its folder's.

        `digest` pins what is at a URL; fetching it ends if the client has `gone`.
        """
        base = await serving_base(self._served, self._options)
        if is_url(path):
            async with self._fetching.fetch(path, digest, field, gone) as found:
                return await self._add(
                    alias,
                    lambda: found.add_to(
                        self.registry, base=base, alias=alias, version=version, language=language
                    ),
                    found.folder,
                )
        if digest is not None:
            message = "digest: it pins what a URL names; leave it out for a folder."
            raise bad_field("digest", message, code="invalid_value")
        folder = await open_folder(self._roots, path, field)
        return await self._add(
            alias,
            lambda: self.registry.add(folder, base=base, alias=alias, version=version, language=language),
            folder,
        )

    async def _add(self, alias: str | None, add: Callable[[], AddResult], folder: Path) -> ChangeResult:
        async with self._follower.change_lock:
            if alias is not None:
                try:
                    self._served.check_alias(alias)
                except AdapterRejectedError as error:
                    raise conflict(f"{error}.") from None
            added = await self.ask(add, folder)
            await self.follow_now()
            adapter = added.adapter
            live = self._serves(adapter.full_name, adapter.digest)
            if live and added.active:
                live = await self._comes_in(adapter)
            return ChangeResult(
                name=adapter.full_name,
                digest=adapter.digest,
                live=live,
                new=added.new,
                active=added.active,
                stands=added.stands,
                base_recorded=added.base_recorded,
                contested=self._contested_aliases(adapter.alias),
            )

    async def takes(self, path: str) -> bool:
        """Whether the adapter in the folder `path` fits the base by its digest, its shapes and its name."""
        try:
            folder = await open_folder(self._roots, path, "path")
        except ApiError:
            return False
        return await asyncio.to_thread(Neighbour(self._options.base, self._served).fits, folder)

    async def promote(self, name: str) -> ChangeResult:
        """Make `alias@version` what its alias stands for, from the answer on."""
        if "@" not in name:
            raise bad_field("name", "Say which version: promote alias@version.", code="version_needed")
        async with self._follower.change_lock:
            listing = await self.listing()
            async with self.ready(self.find(listing, name)) as (adapter,):
                return await self._move(adapter, lambda: self.registry.promote(name))

    async def rollback(self, alias: str) -> ChangeResult:
        """Make active what was so before the present version, from the answer on."""
        async with self._follower.change_lock:
            listing = await self.listing()
            async with self.ready(*self._earlier(listing, alias)) as adapters:
                adapter = adapters[0] if adapters else None
                return await self._move(adapter, lambda: self.registry.rollback(alias))

    def _earlier(self, listing: RegistryListing, alias: str) -> tuple[VersionFolder, ...]:
        """What `alias` would go back to; nothing where the registry is to say why there is none."""
        if "@" in alias:
            return ()
        entry = self.find(listing, alias)
        served = {one.version for one in listing.served_versions(entry.alias)}
        pointers = listing.pointers.roll_back(entry.alias, served)
        return (
            (listing.find(f"{entry.alias}@{pointers.active(entry.alias)}"),) if pointers is not None else ()
        )

    async def retire(self, name: str) -> ChangeResult:
        """Serve `alias@version` no longer; its files stay."""
        if "@" not in name:
            raise bad_field("name", "Say which version: retire alias@version.", code="version_needed")
        async with self._follower.change_lock:
            self.find(await self.listing(), name)
            entry = await self.ask(lambda: self.registry.retire(name))
            await self.follow_now()
            digest = entry.recorded_digest
            live = not self._serves(entry.full_name, digest)
            return ChangeResult(name=entry.full_name, digest=digest, live=live, active=False)

    async def verify(self, name: str) -> list[VersionVerdict]:
        """Read and hash again the versions of an alias, or one."""
        listing = await self.listing()
        alias, at, _ = name.partition("@")
        wanted = () if at else listing.versions(alias)
        wanted = wanted or (self.find(listing, name),)
        base = await serving_base(self._served, self._options)
        return [await asyncio.to_thread(verify_version, entry, base) for entry in wanted]

    def find(self, listing: RegistryListing, name: str) -> VersionFolder:
        """The version of the registry that `name` is. Raises `ApiError` (404, 409)."""
        try:
            return listing.find(name)
        except RegistryError as error:
            raise conflict(str(error)) from None
        except UnknownAdapterError as error:
            if self._served.is_adapter(name):
                served = self._served.resolve(name).full_name
                message = (
                    f"{served} is served and is no version of the registry: it was loaded, or found when the "
                    "server started. Add its folder to the registry first: POST /admin/adapters."
                )
                raise conflict(message) from None
            raise not_found(error) from None

    @asynccontextmanager
    async def ready(self, *entries: VersionFolder) -> AsyncGenerator[tuple[Adapter, ...]]:
        """The versions, in the engine and probed, for what is done inside; where it fails, they leave again.

        Raises `ApiError`.
        """
        brought: list[Adapter] = []
        try:
            yield tuple([await self._bring_in(one, brought) for one in entries])
        except BaseException:
            for adapter in brought:
                self._follower.unload(adapter)
            raise

    async def _bring_in(self, entry: VersionFolder, brought: list[Adapter]) -> Adapter:
        adapter = await self.ask(entry.read)
        if adapter.base_digest not in (None, self._served.base_digest):
            raise conflict(
                f"{adapter.full_name} was made for another base than {self._served.base_name}, which is "
                "served here. Promote it where its own base is served."
            )
        if self._options.provenance is not None:
            await require_known(self._options.provenance, adapter, "name")
        if adapter.digest not in self._runtime.engine.residents.open:
            brought.append(adapter)
        try:
            await self._runtime.residency.ensure(adapter)
        except AdapterRefusedError as error:
            raise describe_engine_refusal(error, "name") from None
        return adapter

    async def _move(self, adapter: Adapter | None, move: Callable[[], AliasMove]) -> ChangeResult:
        moved = await self.ask(move)
        await self.follow_now()
        after, before = moved.after, moved.before
        digest = adapter.digest if adapter is not None else after.recorded_digest
        live = self._serves(after.alias, digest)
        return ChangeResult(
            name=after.full_name,
            digest=digest,
            live=live,
            before=before.full_name if before is not None else None,
            active=True,
            contested=self._contested_aliases(after.alias),
        )

    async def follow_now(self) -> None:
        """Have this server be as the registry is; where that fails, the change stands and is not live yet."""
        try:
            await self._follower.sync()
        except (OSError, FileRefusedError) as error:
            self._follower.log_new({f"the registry cannot be followed: {error}"})

    async def _comes_in(self, adapter: Adapter) -> bool:
        try:
            await self._runtime.residency.ensure(adapter)
        except (AdapterRefusedError, AdapterNotLoadedError):
            return False
        return True

    def _serves(self, name: str, digest: str | None) -> bool:
        """Whether `name` stands for these very contents here."""
        try:
            return self._served.resolve(name).digest == digest
        except UnknownAdapterError:
            return False

    def _contested_aliases(self, alias: str) -> tuple[str, ...]:
        """The aliases that speak what the active version of `alias` speaks; empty where it alone does."""
        snapshot = self._served.snapshot
        language = snapshot.active(alias).language if snapshot.is_adapter(alias) else None
        return snapshot.contested_languages().get(language or "", ())

    async def ask(self, work: Callable[[], ChangeT], folder: Path | None = None) -> ChangeT:
        """What the registry answers, in a thread. Raises `ApiError`, in words that name no folder."""
        try:
            return await asyncio.to_thread(work)
        except AdapterError as error:
            raise describe_refusal(error, "path" if folder is not None else "name") from None
        except FileRefusedError as error:
            raise unusable(error) from None
        except UnknownAdapterError as error:
            raise not_found(error) from None
        except RegistryError as error:
            text = str(error).replace(str(self.registry.folder), "the registry")
            raise conflict(text.replace(str(folder), "the folder") if folder is not None else text) from None
        except OSError as error:
            raise unwritable(error) from None


def check_names(alias: str | None, version: str | None, language: str | None) -> None:
    """Raise `ApiError` by the name of the field that is no such name."""
    checks = (("alias", alias, names.alias), ("version", version, names.version))
    for field, value, check in (*checks, ("language", language, names.language)):
        if value is not None:
            try:
                check(value)
            except ValueError as error:
                raise bad_field(field, f"{field}: {error}.", code="invalid_value") from None


def conflict(message: str) -> ApiError:
    """What the registry's state does not allow; asking again changes nothing."""
    headers = {"x-should-retry": "false"}
    return ApiError(ErrorReply(409, message, param="name", code="adapter_conflict", headers=headers))


def not_found(error: UnknownAdapterError) -> ApiError:
    """A name that is not known."""
    return bad_field("name", str(error), code="adapter_not_found", status=404)
