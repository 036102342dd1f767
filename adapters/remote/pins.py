"""Pin an adapter's URL to its contents, by a digest or by a repository's commit.

In the setting `adapters`, write `URL#sha256:…`, `NAME=URL#sha256:…` or `NAME@VERSION=URL#sha256:…`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from adapters import names
from adapters.remote.errors import URLRefusedError
from adapters.remote.url import AdapterURL, is_url

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def check_digest(text: str) -> str:
    """Return `text` if it is a digest: sha256: and 64 hex digits, as `oneseek adapters add` prints. Raises
    `ValueError` otherwise.
    """
    if not _DIGEST.fullmatch(text):
        raise ValueError(
            "the value is not a digest: write sha256: and 64 hex digits, as `oneseek adapters add` prints"
        )
    return text


def names_url(entry: str) -> bool:
    """True if an entry of the setting `adapters` is a URL, with or without a NAME, rather than a path."""
    return is_url(entry) or is_url(entry.partition("=")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedURL:
    """An adapter's URL in the settings, pinned by a digest or a commit, so that its contents never change."""

    url: AdapterURL
    alias: str | None = None
    version: str | None = None
    digest: str | None = None
    """The pinned digest. None if the URL names a commit."""

    @classmethod
    def parse(cls, entry: str) -> Self:
        """Parse `entry`, a pinned URL in the setting `adapters`. Raises `URLRefusedError`, whose message
        repeats no part of `entry`.
        """
        name, address = ("", entry) if is_url(entry) else entry.split("=", 1)
        address, hash_, pin = address.partition("#")
        url = AdapterURL.parse(address)
        if url.query:
            raise URLRefusedError(
                "the URL in the settings has a part after '?', which may be a secret: remove that part, and "
                "fetch the adapter once with `oneseek adapters add`"
            )
        try:
            digest = check_digest(pin) if hash_ else None
            alias, version = names.split_name(name) if name else (None, None)
        except ValueError as error:
            raise URLRefusedError(str(error)) from None
        if digest is None and not url.pinned:
            commit = ", or write hf://OWNER/NAME@COMMIT" if url.scheme == "hf" else ""
            raise URLRefusedError(
                "the URL is not pinned, so a restart could load other contents: append #sha256:DIGEST to the "
                f"URL, with the digest that `oneseek adapters add` prints{commit}"
            )
        return cls(url=url, alias=alias, version=version, digest=digest)

    def __str__(self) -> str:
        """Return the entry as the setting `adapters` holds it, such as `NAME=URL#sha256:…`."""
        name = f"{self.alias}@{self.version}" if self.version else self.alias
        return (f"{name}=" if name else "") + str(self.url) + (f"#{self.digest}" if self.digest else "")
