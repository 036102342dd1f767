"""Implements `oneseek adapters add URL`, which fetches an adapter into the registry."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from server.config.settings import Settings
from server.config.values import SettingsError

if TYPE_CHECKING:
    from adapters.registry.registry import AddResult
    from adapters.remote.fetch import Progress


def add_url(
    settings: Settings, text: str, asked: tuple[str | None, str | None, str | None], digest: str | None
) -> tuple[AddResult, str]:
    """Fetch the adapter at the URL `text` into the registry. `asked` is its alias, version and language, each
    None if not given.

    Does not fetch an adapter again that is already there and pinned by `digest` or commit. Also returns the
    adapter's entry for the setting `adapters`. Raises `SettingsError` if `text` is not an adapter's URL, and
    the errors of `add_from_url`.
    """
    from adapters.remote.errors import URLRefusedError
    from adapters.remote.fetch import Fetch, add_from_url
    from adapters.remote.pins import PinnedURL
    from adapters.remote.url import AdapterURL
    from server.live.catalogue import open_base, open_registry
    from server.live.configured import fetch_limits, held_versions

    try:
        url = AdapterURL.parse(text)
    except URLRefusedError as error:
        raise SettingsError("FOLDER", f"the adapter cannot be fetched: {error}") from None
    base, registry = open_base(settings), open_registry(settings)
    alias, version, language = asked
    pin = PinnedURL(url=url, alias=alias, version=version, digest=digest)
    held = held_versions(settings, [pin])[0][1] if digest is not None or url.pinned else []
    if held:  # no network for what is here
        kept = held[0]
        added = registry.add(
            kept.folder, base=base, alias=kept.alias, version=kept.version, language=language
        )
    else:
        with _ended_in_order(), _bar(url.name) as progress:
            fetch = Fetch(
                url=url,
                digest=digest,
                limits=fetch_limits(settings),
                follow_redirects=True,
                progress=progress,
            )
            added = add_from_url(
                registry, fetch, settings.home, base=base, alias=alias, version=version, language=language
            )
    adapter = added.adapter
    pinned = PinnedURL(url=url, alias=adapter.alias, version=adapter.version, digest=adapter.digest)
    return added, str(pinned)


@contextmanager
def _ended_in_order() -> Generator[None]:
    """Context manager that treats SIGTERM like Ctrl-C, so that unfinished files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def _bar(name: str) -> Generator[Progress | None]:
    """Show a progress bar for the download if standard error is a terminal. Gives None otherwise."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(name, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
