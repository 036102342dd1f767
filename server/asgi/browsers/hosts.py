"""Refuses requests that pages of other websites make a browser send to this server.

`Host` must be an allowed name of this server. `Origin` and `Sec-Fetch-Site`, which only browsers send, must
show that the request comes from the server's own page or from an origin in `cors_origins` (see `cors`).
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from server.asgi.middleware import OPEN_PATHS, PAGE
from server.config.hosts import AllowedHosts, split_authority
from server.config.origins import CorsOrigins
from server.errors import ApiError, ErrorReply
from server.exchange import EXCHANGE, Exchange

REMEMBERED = 64
"""Maximum number of allowed `Host` values to cache."""
NO_ORIGINS = CorsOrigins()
_PORTS = {"http": 80, "https": 443}


class OwnPages:
    """Refuses requests that name another host (421) or come from another website's page (403).

    Health checks (`OPEN_PATHS`) are answered under any host, because probes use an IP address. Such answers
    hold only a status.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts, origins: CorsOrigins = NO_ORIGINS) -> None:
        self.app = app
        self.hosts = hosts
        self.origins = origins
        self._seen: dict[str, tuple[str, int | None]] = {}
        """Cache of allowed `Host` values, as clients wrote them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Raises `ApiError`: 400 for a bad Host header, 421 for an unknown host, and 403
        for a request from another website's page.
        """
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
        """Return the host and port that the Host header names; None for HTTP/1.0 without a Host header."""
        named = _values(scope, b"host")
        if not named and scope["http_version"] == "1.0":
            return None
        if len(named) != 1:
            raise ApiError(
                ErrorReply(
                    400, f"The request has {len(named)} Host headers; send exactly one.", code="bad_host"
                )
            )
        known = self._seen.get(named[0])
        if known is not None:
            return known
        found = split_authority(named[0])
        if found is None:
            raise ApiError(
                ErrorReply(
                    400,
                    f"The Host header {named[0][:100]!r} is invalid; send a name or an address, with an "
                    "optional port.",
                    code="bad_host",
                )
            )
        if not self.hosts.allows(found[0]):
            raise ApiError(
                ErrorReply(
                    421,
                    f"The host {found[0][:100]!r} is not allowed. "
                    "To allow it, add it to the server's setting allowed_hosts.",
                    code="host_not_allowed",
                )
            )
        if len(self._seen) < REMEMBERED:
            self._seen[named[0]] = found
        return found

    def _check_site(self, scope: Scope, host: tuple[str, int | None] | None) -> None:
        origins = _values(scope, b"origin")
        if origins and all(map(self.origins.allows, origins)):
            return
        if _opens_the_page(scope) and not origins:
            return
        for site in _values(scope, b"sec-fetch-site"):
            if site != "same-origin" and not (site == "none" and scope["method"] in ("GET", "HEAD")):
                raise _other_site(f"Sec-Fetch-Site {site[:20]!r}")
        for origin in origins:
            if not self._is_own(origin, host):
                raise _other_site(f"Origin {origin[:100]!r}")

    def _is_own(self, origin: str, host: tuple[str, int | None] | None) -> bool:
        """True if `origin` is this server's web page: its host is the request's Host, or one of the allowed
        hosts.

        A proxy may replace the Host header. Then the host that browsers use must be in `allowed_hosts`.
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


def _opens_the_page(scope: Scope) -> bool:
    """True if a browser opens the server's web page in a tab, such as by a link on another website, which can
    neither read nor frame it.
    """
    return (
        scope["path"] == PAGE
        and scope["method"] == "GET"
        and _values(scope, b"sec-fetch-mode") == ["navigate"]
        and _values(scope, b"sec-fetch-dest") == ["document"]
    )


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in scope["headers"] if key == name]


def _other_site(what: str) -> ApiError:
    message = (
        f"The request comes from another site ({what}), whose web pages cannot use this server. "
        "Use the server's own page or a program. If this is the server's own page behind a proxy, add the "
        "page's host to the setting allowed_hosts. To allow another site, add its origin to cors_origins."
    )
    return ApiError(ErrorReply(403, message, type="permission_error", code="cross_site"))
