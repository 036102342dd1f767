"""Changes the registry on disk at a client's request. A change is in effect on this server when it is
answered.

A version that becomes active is loaded into the engine first. If that fails, the change is refused and
nothing has changed. Other servers on the same registry follow the change.
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
    """Result of a change to the registry."""

    name: str
    """Full name of the version that was changed."""
    digest: str | None
    live: bool
    """True if this server has applied the change. If not, the log has the reason."""
    before: str | None = None
    """Full name of the version that was active before, if another one has become active."""
    new: bool | None = None
    """True if the added version was not in the registry before; None for other changes."""
    active: bool | None = None
    """True if the changed version is now the active one of its alias."""
    stands: str | None = None
    """Full name of the alias's active version, if the added version did not become active."""
    base_recorded: bool = True
    """False if the added version records no base digest, so that only its shapes show that it fits this
    base.
    """
    contested: tuple[str, ...] = ()
    """Aliases with the version's language, if there are several; then routing by language uses none of them.
    """


class RegistryChanges:
    """Changes the registry on disk at clients' requests, and applies each change to this server."""

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
        """Return the registry's current contents."""
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
        """Add the adapter in the folder or at the URL `path` to the registry, as a version.

        Alias and version: as given, else as the adapter records them, else from the folder's name. `digest`
        is the expected digest of a URL's contents. The fetch is cancelled if the client disconnects (see
        `gone`).
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
            raise bad_field(
                "digest",
                "digest works only if path is a URL; remove digest, or give a URL as path.",
                code="invalid_value",
            )
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
        """True if the adapter in the folder `path` fits the base by digest, shapes and name."""
        try:
            folder = await open_folder(self._roots, path, "path")
        except ApiError:
            return False
        return await asyncio.to_thread(Neighbour(self._options.base, self._served).fits, folder)

    async def promote(self, name: str) -> ChangeResult:
        """Make `alias@version` the active version of its alias. When this returns, it is in effect on this
        server.
        """
        if "@" not in name:
            raise bad_field(
                "name", "The adapter's name has no version; use alias@version.", code="version_needed"
            )
        async with self._follower.change_lock:
            listing = await self.listing()
            async with self.ready(self.find(listing, name)) as (adapter,):
                return await self._move(adapter, lambda: self.registry.promote(name))

    async def rollback(self, alias: str) -> ChangeResult:
        """Make the previously active version active again. When this returns, it is in effect on this
        server.
        """
        async with self._follower.change_lock:
            listing = await self.listing()
            async with self.ready(*self._earlier(listing, alias)) as adapters:
                adapter = adapters[0] if adapters else None
                return await self._move(adapter, lambda: self.registry.rollback(alias))

    def _earlier(self, listing: RegistryListing, alias: str) -> tuple[VersionFolder, ...]:
        """Return the version that a rollback of `alias` would make active; empty if there is none. The
        rollback then raises an error with the reason.
        """
        if "@" in alias:
            return ()
        entry = self.find(listing, alias)
        served = {one.version for one in listing.served_versions(entry.alias)}
        pointers = listing.pointers.roll_back(entry.alias, served)
        return (
            (listing.find(f"{entry.alias}@{pointers.active(entry.alias)}"),) if pointers is not None else ()
        )

    async def retire(self, name: str) -> ChangeResult:
        """Stop serving `alias@version`; its files stay."""
        if "@" not in name:
            raise bad_field(
                "name", "The adapter's name has no version; use alias@version.", code="version_needed"
            )
        async with self._follower.change_lock:
            self.find(await self.listing(), name)
            entry = await self.ask(lambda: self.registry.retire(name))
            await self.follow_now()
            digest = entry.recorded_digest
            live = not self._serves(entry.full_name, digest)
            return ChangeResult(name=entry.full_name, digest=digest, live=live, active=False)

    async def verify(self, name: str) -> list[VersionVerdict]:
        """Check all versions of an alias, or one version, by reading and hashing their files again."""
        listing = await self.listing()
        alias, at, _ = name.partition("@")
        wanted = () if at else listing.versions(alias)
        wanted = wanted or (self.find(listing, name),)
        base = await serving_base(self._served, self._options)
        return [await asyncio.to_thread(verify_version, entry, base) for entry in wanted]

    def find(self, listing: RegistryListing, name: str) -> VersionFolder:
        """Return the registry's version called `name`. Raises `ApiError`: 404 for an unknown name, 409 for a
        version outside the registry.
        """
        try:
            return listing.find(name)
        except RegistryError as error:
            raise conflict(str(error)) from None
        except UnknownAdapterError as error:
            if self._served.is_adapter(name):
                served = self._served.resolve(name).full_name
                raise conflict(
                    f"The adapter {served} is not in the registry. Add its folder to the registry first, "
                    "with "
                    "POST /admin/adapters."
                ) from None
            raise not_found(error) from None

    @asynccontextmanager
    async def ready(self, *entries: VersionFolder) -> AsyncGenerator[tuple[Adapter, ...]]:
        """Load the versions into the engine and test them, before the `with` block runs. If the block fails,
        unload them.

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
                f"The adapter {adapter.full_name} was made for another base than {self._served.base_name}. "
                "Promote it on a server of its own base."
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
        """Apply the registry's state to this server. If that fails, the registry is changed, but this server
        is not.
        """
        try:
            await self._follower.sync()
        except (OSError, FileRefusedError) as error:
            self._follower.log_new(
                {f"the registry cannot be read, so the server does not apply its changes: {error}"}
            )

    async def _comes_in(self, adapter: Adapter) -> bool:
        try:
            await self._runtime.residency.ensure(adapter)
        except (AdapterRefusedError, AdapterNotLoadedError):
            return False
        return True

    def _serves(self, name: str, digest: str | None) -> bool:
        """True if this server serves the contents with this digest under `name`."""
        try:
            return self._served.resolve(name).digest == digest
        except UnknownAdapterError:
            return False

    def _contested_aliases(self, alias: str) -> tuple[str, ...]:
        """Return all aliases with the language of `alias`'s active version; empty if no other alias has
        it.
        """
        snapshot = self._served.snapshot
        language = snapshot.active(alias).language if snapshot.is_adapter(alias) else None
        return snapshot.contested_languages().get(language or "", ())

    async def ask(self, work: Callable[[], ChangeT], folder: Path | None = None) -> ChangeT:
        """Call `work`, which uses the registry, in a thread. Raises `ApiError`, whose message has no paths of
        the host.
        """
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
    """Raise `ApiError`, which names the field, for an invalid alias, version or language."""
    checks = (("alias", alias, names.alias), ("version", version, names.version))
    for field, value, check in (*checks, ("language", language, names.language)):
        if value is not None:
            try:
                check(value)
            except ValueError as error:
                raise bad_field(field, f"{field}: {error}.", code="invalid_value") from None


def conflict(message: str) -> ApiError:
    """Return a 409 error: the registry's state does not allow the change, so a retry would fail too."""
    headers = {"x-should-retry": "false"}
    return ApiError(ErrorReply(409, message, param="name", code="adapter_conflict", headers=headers))


def not_found(error: UnknownAdapterError) -> ApiError:
    """Return the 404 error for an unknown adapter."""
    return bad_field("name", str(error), code="adapter_not_found", status=404)
