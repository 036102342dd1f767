"""Errors for a URL that is refused and for a fetch that fails. No message holds a password, key or query."""

from __future__ import annotations

from typing import Literal

FetchFailure = Literal[
    "missing",
    "forbidden",
    "unreachable",
    "timeout",
    "too_large",
    "not_adapter",
    "mismatch",
    "extra",
    "stopped",
]
"""Why a fetch failed.

`missing`: there is nothing at the URL. `mismatch`: the contents do not have the digest or commit that the
settings require. `extra`: a Python package is not installed. `stopped`: the fetch was cancelled.
"""


class URLRefusedError(ValueError):
    """The text is not a URL from which an adapter may be fetched. The message says what is wrong and what to
    do.
    """


class FetchError(ValueError):
    """An adapter could not be fetched, and none of its files are left on the disk. The message names the URL
    and what to do.
    """

    def __init__(self, url: object, failure: FetchFailure, reason: str, remedy: str) -> None:
        self.failure: FetchFailure = failure
        super().__init__(f"{url}: {reason}. {remedy}")
