"""The names under which a server may be asked for: a page in a browser can bring it any other.

A name that an attacker owns may lead to this machine (DNS rebinding); the browser then takes the answers for
the attacker's own, but says the name in `Host`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

ANY = "*"
_NAME = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]{0,252}[a-z0-9_])?")
_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[a-zA-Z0-9_.-]{1,254})(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """Names and addresses; loopback's are always among them."""

    everything: bool = False
    names: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()
    """What follows the `*` of `*.example.com`."""
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, bound: str, entries: Iterable[str]) -> AllowedHosts:
        """For a server that listens on `bound`: `entries`; without any, every name unless it is loopback."""
        found = cls.parse(entries)
        return found if found != cls() else cls(everything=not is_loopback(bound))

    @classmethod
    def parse(cls, entries: Iterable[str]) -> AllowedHosts:
        """Names, `*.example.com`, addresses, networks or `*`. Raises `ValueError` for anything else."""
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
                    f"{entry!r} is not a host; write names such as example.com or *.example.com, an address, "
                    "or *, without scheme and port"
                )
            elif text.startswith("*."):
                suffixes.append(text[1:])
            else:
                names.add(text)
        return cls(everything, frozenset(names), tuple(suffixes), tuple(networks))

    def allows(self, host: str) -> bool:
        """Whether a request may name `host`, as `split_authority` has it."""
        if self.everything or is_loopback(host) or host in self.names:
            return True
        if self.suffixes and host.endswith(self.suffixes):
            return True
        address = _address(host)
        return address is not None and any(address in network for network in self.networks)

    def has_page(self, host: str) -> bool:
        """Whether an entry names `host` itself, so that pages of its standard port are the server's."""
        return host in self.names and not is_loopback(host)


def host_name(host: str) -> str:
    """`host` as hosts are compared: in lower case, without the root's dot."""
    return host.lower().removesuffix(".")


def split_authority(text: str) -> tuple[str, int | None] | None:
    """Host and port of `Host`, without an address's brackets; None if it is neither name nor address."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    host, port = match.groups()
    name = host_name(host.removeprefix("[").removesuffix("]"))
    if not name or (host.startswith("[") and _address(name) is None):
        return None
    return name, int(port) if port else None


def is_loopback(host: str) -> bool:
    """Whether `host` can mean this machine alone."""
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
