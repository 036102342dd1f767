"""Parse the setting `cors_origins`: the web origins that CORS allows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

ANY = "*"
_STANDARD = {"http": "80", "https": "443"}
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class CorsOrigins:
    """Allowed web origins, in the form that browsers send (RFC 6454): scheme, host, and the port if it is not
    the default.
    """

    everything: bool = False
    names: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> CorsOrigins:
        """Parse origins such as `https://app.example.com` or `*`. Raises `ValueError` for anything else."""
        given = [entry.strip() for entry in entries]
        return cls(ANY in given, frozenset(_normal(entry) for entry in given if entry != ANY))

    def __bool__(self) -> bool:
        return self.everything or bool(self.names)

    def allows(self, origin: str) -> bool:
        """True if web pages of `origin` may use the server. `origin` is in the form that browsers send."""
        return self.everything or origin.lower() in self.names


def _normal(entry: str) -> str:
    match = _ORIGIN.fullmatch(entry.lower().removesuffix("/"))
    if match is None or int(match["port"] or 0) > 65535:
        raise ValueError(
            f"{entry!r} is not an origin; use scheme, host and port, such as https://app.example.com or "
            "http://localhost:5173, or * for any origin"
        )
    scheme, host, port = match["scheme"], match["host"], match["port"]
    return f"{scheme}://{host}" + (f":{int(port)}" if port and port != _STANDARD.get(scheme) else "")
