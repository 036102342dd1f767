"""What a browser may ask: a page of another site can send any request to this machine, and some of its own.

`Host` has to be a name of this server, and `Origin` and `Sec-Fetch-Site`, which browsers alone send, have to
say that the server's own page asks, or one of an origin in `cors_origins` (see `cors`).
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from server.asgi.middleware import OPEN_PATHS
from server.config.hosts import AllowedHosts, split_authority
from server.config.origins import CorsOrigins
from server.errors import ApiError, ErrorReply
from server.exchange import EXCHANGE, Exchange

REMEMBERED = 64
"""Hosts whose check is remembered."""
NO_ORIGINS = CorsOrigins()
_PORTS = {"http": 80, "https": 443}


class OwnPages:
    """Refuses requests for other hosts (421) and from other sites' pages (403).

    The open paths answer under any host, since probes name an address; they then say no more than a status.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts, origins: CorsOrigins = NO_ORIGINS) -> None:
        self.app = app
        self.hosts = hosts
        self.origins = origins
        self._seen: dict[str, tuple[str, int | None]] = {}
        """Hosts that were allowed, as their clients wrote them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or raise `ApiError` (400, 403, 421)."""
        if scope["type"] == "http":
            exchange: Exchange = scope[EXCHANGE]
            exchange.from_page = bool(_values(scope, b"origin") or _values(scope, b"sec-fetch-site"))
            try:
                host = self._host(scope)
                self._check_site(scope, host)
            except ApiError:
                if scope["path"] not in OPEN_PATHS:
                    raise
                exchange.trusted = False
        await self.app(scope, receive, send)

    def _host(self, scope: Scope) -> tuple[str, int | None] | None:
        """Host and port that the request names; None for HTTP/1.0 without any."""
        named = _values(scope, b"host")
        if not named and scope["http_version"] == "1.0":
            return None
        if len(named) != 1:
            message = f"The request has {len(named)} Host headers; send one."
            raise ApiError(ErrorReply(400, message, code="bad_host"))
        known = self._seen.get(named[0])
        if known is not None:
            return known
        found = split_authority(named[0])
        if found is None:
            message = f"Host is {named[0][:100]!r}; send a name or an address, and a port."
            raise ApiError(ErrorReply(400, message, code="bad_host"))
        if not self.hosts.allows(found[0]):
            message = f"This server is not {found[0][:100]!r}. To allow the name, add it to allowed_hosts."
            raise ApiError(ErrorReply(421, message, code="host_not_allowed"))
        if len(self._seen) < REMEMBERED:
            self._seen[named[0]] = found
        return found

    def _check_site(self, scope: Scope, host: tuple[str, int | None] | None) -> None:
        origins = _values(scope, b"origin")
        if origins and all(map(self.origins.allows, origins)):
            return
        for site in _values(scope, b"sec-fetch-site"):
            if site != "same-origin" and not (site == "none" and scope["method"] in ("GET", "HEAD")):
                raise _other_site(f"Sec-Fetch-Site {site[:20]!r}")
        for origin in origins:
            if not self._is_own(origin, host):
                raise _other_site(f"Origin {origin[:100]!r}")

    def _is_own(self, origin: str, host: tuple[str, int | None] | None) -> bool:
        """Whether a page of `origin` is the server's: of the host that is asked, or at an allowed one.

        A proxy may put another Host in the place of the page's; the page's own is then in `allowed_hosts`.
        """
        scheme, between, authority = origin.partition("://")
        found = split_authority(authority) if between and scheme in _PORTS else None
        if found is None or host is None:
            return False
        name, port = found
        standard = port in (None, _PORTS[scheme])
        if name == host[0] and (port == host[1] or (standard and host[1] in (None, _PORTS[scheme]))):
            return True
        return standard and self.hosts.has_page(name)


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key == name]


def _other_site(what: str) -> ApiError:
    message = (
        f"{what}: pages of other sites may not ask this server. Ask from its own page or from a program. "
        "If the page is the server's own behind a proxy, add its host to allowed_hosts; if it "
        "is another site's that should ask, add its origin to cors_origins."
    )
    return ApiError(ErrorReply(403, message, type="permission_error", code="cross_site"))
