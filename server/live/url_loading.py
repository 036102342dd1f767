"""Loads an adapter by URL for `load_lora_adapter`: it becomes a version of the registry and is served from
there.
"""

from __future__ import annotations

from adapters import names
from adapters.errors import UnknownAdapterError
from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from server.errors import bad_field
from server.live.fetching import Gone
from server.live.follower import RegistryFollower
from server.live.loading import NAME, PATH
from server.live.registry_changes import ChangeResult, RegistryChanges


class URLLoading:
    """Loads adapters from URLs into the registry, so that nothing is served from a temporary folder."""

    def __init__(self, served: ServedAdapters, follower: RegistryFollower, registry: RegistryChanges) -> None:
        self._served = served
        self._follower = follower
        self._registry = registry

    async def load(self, name: str, url: str, gone: Gone, *, in_place: bool = False) -> ChangeResult:
        """Serve the adapter at `url` under `name`: an alias, or `alias@version`.

        With `in_place`, the new version becomes the active one of an existing alias. Raises `ApiError`; then
        nothing has changed.
        """
        if self._served.is_base(name):
            raise bad_field(
                NAME,
                f"The lora adapter '{name[:128]}' conflicts with a served base model.",
                code="adapter_exists",
            )
        try:
            alias, version = names.split_name(name)
        except ValueError as error:
            raise bad_field(NAME, f"{NAME}: {error}.", code="invalid_value") from None
        present = self._find(f"{alias}@{version}" if version else alias)
        if present is not None and not in_place:
            raise bad_field(
                NAME,
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in "
                "place, set 'load_inplace' to True.",
                code="adapter_exists",
            )
        if present is not None and self._follower.is_loaded(present):
            raise bad_field(
                NAME,
                f"The adapter {present.full_name} was loaded from a folder; unload it before you load a URL "
                f"as {name}.",
                code="adapter_exists",
            )
        added = await self._registry.add(url, alias=alias, version=version, field=PATH, gone=gone)
        if version is None and not added.active:
            return await self._registry.promote(added.name)
        return added

    def _find(self, name: str) -> Adapter | None:
        try:
            return self._served.resolve(name)
        except UnknownAdapterError:
            return None
