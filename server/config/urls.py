"""Check the URLs in the settings: URLs of adapters, and URL prefixes from which clients may load adapters."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.remote.errors import URLRefusedError
from adapters.remote.pins import PinnedURL, names_url
from adapters.remote.url import URLPrefixes
from server.config.values import SettingsError


def check_urls(adapters: Sequence[str], prefixes: Sequence[str]) -> None:
    """Raise `SettingsError` for an invalid URL. The error names the entry by its number, since a URL may hold
    a secret.
    """
    for number, entry in enumerate(adapters, 1):
        if names_url(entry):
            try:
                PinnedURL.parse(entry)
            except URLRefusedError as error:
                raise SettingsError("adapters", f"entry {number}: {error}") from None
    for number, prefix in enumerate(prefixes, 1):
        try:
            URLPrefixes.parse([prefix])
        except URLRefusedError as error:
            raise SettingsError("adapter_urls", f"entry {number}: {error}") from None
