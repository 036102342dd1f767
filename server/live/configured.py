"""Fetches the adapters that the settings name by URL into the registry, once, when the server starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from adapters.errors import FileRefusedError
from adapters.registry.listing import RegistryListing, VersionFolder
from adapters.remote.pins import PinnedURL, names_url
from server.config.settings import Settings

if TYPE_CHECKING:
    from adapters.registry.intake import Base
    from adapters.registry.registry import Registry
    from adapters.remote.fetch import FetchLimits, Progress


def fetch_configured(
    settings: Settings,
    missing: Iterable[PinnedURL],
    registry: Registry,
    base: Base,
    say: Callable[[str], None],
    progress: Callable[[str], Callable[[int, int], None]],
) -> None:
    """Fetch the `missing` adapters into the registry. Raises the error of the first one that fails, so that
    no server starts without an adapter that its settings list. See `add_from_url`.
    """
    from adapters.remote.fetch import Fetch, add_from_url

    for pin in missing:
        say(f"fetching {pin}")
        fetch = Fetch(
            url=pin.url,
            digest=pin.digest,
            limits=fetch_limits(settings),
            follow_redirects=True,
            progress=_known(progress(pin.url.name)),
        )
        added = add_from_url(registry, fetch, settings.home, base=base, alias=pin.alias, version=pin.version)
        name = added.adapter.full_name
        after = (
            ""
            if added.active
            else f", not active; request it as {name}, or make it active: oneseek adapters promote {name}"
        )
        say(f"fetched {name} ({added.adapter.digest}){after}")


def _known(progress: Callable[[int, int], None]) -> Progress:
    """Return a callback that calls `progress` if the file's size is known, and otherwise does nothing."""
    return lambda done, total: progress(done, total) if total else None


def fetch_limits(settings: Settings) -> FetchLimits:
    """Return the limits of size and time for fetching an adapter, from the settings."""
    from adapters.remote.fetch import FetchLimits

    return FetchLimits(max_bytes=settings.max_fetch_size, seconds=settings.fetch_timeout)


def unfetched(settings: Settings) -> list[PinnedURL]:
    """Return the adapters that the settings list by URL and that are not in the registry, not even
    retired.
    """
    return [pin for pin, held in _held(settings) if not held]


def describe_configured(settings: Settings) -> list[str]:
    """Return a note for each adapter listed by URL that is retired, or that a server would fetch at its
    start.
    """
    notes: list[str] = []
    retired = _retired(settings) if any(map(names_url, settings.adapters)) else frozenset[str]()
    for pin, held in _held(settings):
        if not held:
            notes.append(f"the adapter {pin} is not in the registry yet; oneseek serve will fetch it")
        elif all(entry.full_name in retired for entry in held):
            name = held[0].full_name
            notes.append(f"the adapter {pin} is retired; to serve it again: oneseek adapters promote {name}")
    return notes


def _held(settings: Settings) -> list[tuple[PinnedURL, list[VersionFolder]]]:
    """Return the adapters that the settings list by URL, each with its versions in the registry."""
    pins = [PinnedURL.parse(entry) for entry in settings.adapters if names_url(entry)]
    return held_versions(settings, pins) if pins else []


def held_versions(
    settings: Settings, pins: Iterable[PinnedURL]
) -> list[tuple[PinnedURL, list[VersionFolder]]]:
    """Return each URL in `pins` with the versions in the registry that have the digest and the name of the
    URL's adapter.

    If a URL gives no digest, the ledger's digest for this URL is used.
    """
    entries, pins = RegistryListing.without_pointers(settings.home / "registry").entries, list(pins)
    commits = dict(_commits(settings)) if any(pin.digest is None for pin in pins) else {}
    return [(pin, list(_holding(pin, entries, pin.digest or commits.get(str(pin.url))))) for pin in pins]


def _holding(pin: PinnedURL, entries: Iterable[VersionFolder], digest: str | None) -> Iterator[VersionFolder]:
    """Yield the versions in `entries` that have the digest `digest` and the name that the URL `pin` in the
    settings asks for.
    """
    for entry in entries if digest is not None else ():
        named = entry.is_named(pin.alias or entry.alias, pin.version or entry.version)
        if named and entry.recorded_digest == digest:
            yield entry


def _retired(settings: Settings) -> frozenset[str]:
    try:
        listing = RegistryListing.read(settings.home / "registry")
    except FileRefusedError:
        return frozenset()  # which is reported where versions are read
    return frozenset(entry.full_name for entry in listing.entries if listing.is_retired(entry))


def _commits(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the URL and digest of each adapter that the ledger records as added from a URL."""
    from adapters.ledger import Ledger

    try:
        for entry in Ledger.open(settings.home / "ledger").entries():
            record = entry.record
            if record.action != "add":
                continue
            url, digest = record.details.get("url"), record.outputs.get("adapter")
            if isinstance(url, str) and isinstance(digest, str):
                yield url, digest
    except FileRefusedError:
        return  # whatever needs the ledger reports it
