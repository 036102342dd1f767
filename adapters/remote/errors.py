"""Why a URL is not taken, and why what it names is not fetched. No message holds a password, key or query."""

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
"""`missing`: nothing is there. `mismatch`: not what was pinned. `extra`: a package is not installed."""


class URLRefusedError(ValueError):
    """Text that is not a URL of an adapter; the message says what is wrong and what helps."""


class FetchError(ValueError):
    """An adapter is not fetched, and nothing is left of it; the message names the URL and what helps."""

    def __init__(self, url: object, failure: FetchFailure, reason: str, remedy: str) -> None:
        self.failure: FetchFailure = failure
        super().__init__(f"{url}: {reason}. {remedy}")
