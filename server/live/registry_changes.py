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
from adapters.errors import AdapterError, FileRefusedError, StoreError, UnknownAdapterError
from adapters.lora.manifest import Adapter
from adapters.registry.listing import Held, Shelf
from adapters.registry.store import Moved, Store
from adapters.registry.verify import Verdict, verify
from server.errors import AdapterNotLoadedError, AdapterRefusedError, ApiError, ErrorReply, bad_field
from server.live.follower import Watch
from server.live.loading import engine_refused, opened, refused, require_known, serving_base, unusable
from server.live.roots import Roots
from server.serving.generation import Generation

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
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
    contested: tuple[str, ...] = ()
    """Aliases that speak its language, where they are several, so that none is chosen for it."""


class Administration:
    """The changes that one server makes to the registry on disk."""

    def __init__(self, generation: Generation, watch: Watch, store: Store, roots: Roots) -> None:
        self._generation = generation
        self._registry = generation.registry
        self._watch = watch
        self._follow = watch.follow
        self.store = store
        self._roots = roots

    async def shelf(self) -> Shelf:
        """What the registry holds at this moment."""
        return await self.asked(self.store.shelf)

    async def add(
        self, path: str, *, alias: str | None = None, version: str | None = None, language: str | None = None
    ) -> Change:
        """Make the folder `path` a version, by the names that are passed, recorded, or its folder's."""
        folder = await opened(self._roots, path, "path")
        base = await serving_base(self._registry, self._follow)
        async with self._watch.changing:
            added = await self.asked(
                lambda: self.store.add(folder, base=base, alias=alias, version=version, language=language),
                folder,
            )
            await self.follow_now()
            adapter = added.adapter
            live = self._serves(adapter.full_name, adapter.digest)
            if live and added.active:
                live = await self._comes_in(adapter)
            return Change(
                name=adapter.full_name,
                digest=adapter.digest,
                live=live,
                new=added.new,
                active=added.active,
                contested=self._contested(adapter.alias),
            )

    async def promote(self, name: str) -> Change:
        """Make `alias@version` what its alias stands for, from the answer on."""
        if "@" not in name:
            raise bad_field("name", "Say which version: promote alias@version.", code="version_needed")
        async with self._watch.changing:
            shelf = await self.shelf()
            async with self.ready(self.found(shelf, name)) as (adapter,):
                return await self._moved(adapter, lambda: self.store.promote(name))

    async def rollback(self, alias: str) -> Change:
        """Make active what was so before the present version, from the answer on."""
        async with self._watch.changing:
            shelf = await self.shelf()
            async with self.ready(*self._earlier(shelf, alias)) as adapters:
                adapter = adapters[0] if adapters else None
                return await self._moved(adapter, lambda: self.store.rollback(alias))

    def _earlier(self, shelf: Shelf, alias: str) -> tuple[Held, ...]:
        """What `alias` would go back to; nothing where the registry is to say why there is none."""
        if "@" in alias:
            return ()
        held = self.found(shelf, alias)
        served = {one.version for one in shelf.served(held.alias)}
        actives = shelf.actives.rolled_back(held.alias, served)
        return (shelf.find(f"{held.alias}@{actives.active(held.alias)}"),) if actives is not None else ()

    async def retire(self, name: str) -> Change:
        """Serve `alias@version` no longer; its files stay."""
        if "@" not in name:
            raise bad_field("name", "Say which version: retire alias@version.", code="version_needed")
        async with self._watch.changing:
            self.found(await self.shelf(), name)
            held = await self.asked(lambda: self.store.retire(name))
            await self.follow_now()
            digest = held.recorded_digest
            live = not self._serves(held.full_name, digest)
            return Change(name=held.full_name, digest=digest, live=live, active=False)

    async def verify(self, name: str) -> list[Verdict]:
        """Read and hash again the versions of an alias, or one."""
        shelf = await self.shelf()
        alias, at, _ = name.partition("@")
        wanted = () if at else shelf.versions(alias)
        wanted = wanted or (self.found(shelf, name),)
        base = await serving_base(self._registry, self._follow)
        return [await asyncio.to_thread(verify, held, base) for held in wanted]

    def found(self, shelf: Shelf, name: str) -> Held:
        """The version of the registry that `name` is. Raises `ApiError` (404, 409)."""
        try:
            return shelf.find(name)
        except StoreError as error:
            raise conflict(str(error)) from None
        except UnknownAdapterError as error:
            if self._registry.is_adapter(name):
                served = self._registry.resolve(name).full_name
                message = (
                    f"{served} is served and is no version of the registry: it was loaded, or found when the "
                    "server started. Add its folder to the registry first: POST /admin/adapters."
                )
                raise conflict(message) from None
            raise not_found(error) from None

    @asynccontextmanager
    async def ready(self, *held: Held) -> AsyncGenerator[tuple[Adapter, ...]]:
        """The versions, in the engine and probed, for what is done inside; where it fails, they leave again.

        Raises `ApiError`.
        """
        brought: list[Adapter] = []
        try:
            yield tuple([await self._brought(one, brought) for one in held])
        except BaseException:
            for adapter in brought:
                self._watch.unload(adapter)
            raise

    async def _brought(self, held: Held, brought: list[Adapter]) -> Adapter:
        adapter = await self.asked(held.read)
        if adapter.base_digest not in (None, self._registry.base_digest):
            raise conflict(
                f"{adapter.full_name} was made for another base than {self._registry.base_name}, which is "
                "served here. Promote it where its own base is served."
            )
        await require_known(self._follow, adapter, "name")
        if adapter.digest not in self._generation.engine.residents.open:
            brought.append(adapter)
        try:
            await self._generation.residency.ensure(adapter)
        except AdapterRefusedError as error:
            raise engine_refused(error, "name") from None
        return adapter

    async def _moved(self, adapter: Adapter | None, move: Callable[[], Moved]) -> Change:
        moved = await self.asked(move)
        await self.follow_now()
        after, before = moved.after, moved.before
        digest = adapter.digest if adapter is not None else after.recorded_digest
        live = self._serves(after.alias, digest)
        return Change(
            name=after.full_name,
            digest=digest,
            live=live,
            before=before.full_name if before is not None else None,
            active=True,
            contested=self._contested(after.alias),
        )

    async def follow_now(self) -> None:
        """Have this server be as the registry is; where that fails, the change stands and is not live yet."""
        try:
            await self._watch.look_now()
        except (OSError, FileRefusedError) as error:
            self._watch.say({f"the registry cannot be followed: {error}"})

    async def _comes_in(self, adapter: Adapter) -> bool:
        try:
            await self._generation.residency.ensure(adapter)
        except (AdapterRefusedError, AdapterNotLoadedError):
            return False
        return True

    def _serves(self, name: str, digest: str | None) -> bool:
        """Whether `name` stands for these very contents here."""
        try:
            return self._registry.resolve(name).digest == digest
        except UnknownAdapterError:
            return False

    def _contested(self, alias: str) -> tuple[str, ...]:
        """The aliases that speak what the active version of `alias` speaks; empty where it alone does."""
        snapshot = self._registry.snapshot
        language = snapshot.active(alias).language if snapshot.is_adapter(alias) else None
        return snapshot.contested().get(language or "", ())

    async def asked(self, work: Callable[[], Made], folder: Path | None = None) -> Made:
        """What the registry answers, in a thread. Raises `ApiError`, in words that name no folder."""
        try:
            return await asyncio.to_thread(work)
        except AdapterError as error:
            raise refused(error, "path" if folder is not None else "name") from None
        except FileRefusedError as error:
            raise unusable(error) from None
        except UnknownAdapterError as error:
            raise not_found(error) from None
        except StoreError as error:
            text = str(error).replace(str(self.store.folder), "the registry")
            raise conflict(text.replace(str(folder), "the folder") if folder is not None else text) from None


def checked_names(alias: str | None, version: str | None, language: str | None) -> None:
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
