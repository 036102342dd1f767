"""Allowed hosts: the names and addresses that a request's `Host` header may hold.

This stops DNS rebinding: an attacker points a domain at this machine, so that the attacker's web page can
read the server's answers in a user's browser. The browser still sends the attacker's domain in `Host`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from server.config.values import SettingsError

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

ANY = "*"
_NAME = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]{0,252}[a-z0-9_])?")
_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[a-zA-Z0-9_.-]{1,254})(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """Allowed names, addresses and networks in `Host` headers. Loopback names and addresses are always
    allowed.
    """

    everything: bool = False
    names: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()
    """Suffixes from wildcard entries, such as `.example.com` from `*.example.com`."""
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, bound: str, entries: Iterable[str]) -> AllowedHosts:
        """Return the allowed hosts of a server that listens on `bound`. Without `entries`, any host is
        allowed, or only loopback if the server listens on loopback.
        """
        found = cls.parse(entries)
        return found if found != cls() else cls(everything=not is_loopback(bound))

    @classmethod
    def parse(cls, entries: Iterable[str]) -> AllowedHosts:
        """Parse the entries: names, `*.example.com`, addresses, networks or `*`. Raises `ValueError` for
        anything else.
        """
        names: set[str] = set()
        suffixes: list[str] = []
        networks: list[Network] = []
        everything = False
        for entry in entries:
            text = host_name(entry.strip().removeprefix("[").removesuffix("]"))
            network = _network(text)
            if entry.strip() == ANY:
                everything = True
            elif network is not None:
                networks.append(network)
            elif not _NAME.fullmatch(text):
                raise ValueError(
                    f"{entry!r} is not a host; use a name such as example.com or *.example.com, an address, "
                    "or *, without scheme and port"
                )
            elif text.startswith("*."):
                suffixes.append(text[1:])
            else:
                names.add(text)
        return cls(everything, frozenset(names), tuple(suffixes), tuple(networks))

    def allows(self, host: str) -> bool:
        """True if `host` is allowed in a request's `Host` header. `host` is as `split_authority` returns
        it.
        """
        if self.everything or is_loopback(host) or host in self.names:
            return True
        if self.suffixes and host.endswith(self.suffixes):
            return True
        address = _address(host)
        return address is not None and any(address in network for network in self.networks)

    def has_page(self, host: str) -> bool:
        """True if `host` itself is an entry. Web pages from it, on the standard port, then count as the
        server's own.
        """
        return host in self.names and not is_loopback(host)


def host_name(host: str) -> str:
    """Return `host` in lower case and without a trailing dot, for comparison."""
    return host.lower().removesuffix(".")


def split_authority(text: str) -> tuple[str, int | None] | None:
    """Return host (without brackets) and port of a `Host` header. None if the host is not a name or an
    address.
    """
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    host, port = match.groups()
    name = host_name(host.removeprefix("[").removesuffix("]"))
    if not name or (host.startswith("[") and _address(name) is None):
        return None
    return name, int(port) if port else None


def parse_proxies(entries: Iterable[str]) -> list[str]:
    """Parse the addresses and networks of trusted proxies. Raises `SettingsError` for anything else."""
    found = [entry.strip() for entry in entries]
    for entry in found:
        if _network(entry) is None:
            raise SettingsError(
                "trusted_proxies",
                f"{entry!r} is not an address or a network; "
                "give the address or network of the proxy, such as 127.0.0.1 or 10.0.0.0/8",
            )
    return found


def is_loopback(host: str) -> bool:
    """True if `host` is a loopback name or address."""
    if host_name(host) == "localhost":
        return True
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None
