"""What pages of other sites may make a browser ask: nothing, unless their origin is listed.

A browser sends a page's request from inside the network, where no firewall sees it. DNS rebinding
makes it look like one of the gateway's own pages, so that names of hosts count as well.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import Forbidden
from server.network.addresses import is_socket
from server.settings import Settings

ANY = "*"


class BrowserGuard:
    """For the port at `address`, HOST:PORT or unix:/PATH."""

    def __init__(self, settings: Settings, address: str) -> None:
        self._hosts = frozenset(name.lower() for name in settings.allowed_hosts)
        self._origins = frozenset(settings.cors_origins)
        # Which names lead to a wildcard address is known to the operator alone.
        is_known = not is_socket(address) and not is_wildcard(address)
        self._checks_hosts = ANY not in self._hosts and (bool(self._hosts) or is_known)

    def check(self, method: str, headers: Headers) -> None:
        """
        Raises:
            Forbidden: the host is unknown, or the request comes from another site's page.
        """
        host = headers.get("host", "")
        name = host_name(host)
        if self._checks_hosts and (name is None or not (is_own(name) or name in self._hosts)):
            raise Forbidden("unknown host: the operator can add it to --allowed-hosts")
        if not self._is_trusted(method, host, headers):
            raise Forbidden(
                "a page of another site asks: the operator can add its origin to --cors-origins"
            )

    def _is_trusted(self, method: str, host: str, headers: Headers) -> bool:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin in self._origins:
            return True
        if site is not None:  # pages cannot write it
            is_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
            is_top = headers.get("sec-fetch-dest") == "document"
            return site in ("same-origin", "none") or (is_link and is_top)
        return origin is None or origin.partition("://")[2].lower() == host.lower()


def host_name(host: str) -> str | None:
    """In lower case, without the port; None: the header is invalid."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if host.isprintable() else None
    except ValueError:  # such as an opening bracket alone
        return None


def is_wildcard(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_unspecified
    except ValueError:
        return False


def is_own(name: str) -> bool:
    """Names that no stranger's DNS answers for: none, addresses, and names without a domain."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(".localhost")
    return True


class BrowserGuardMiddleware:
    """For applications without calls."""

    def __init__(self, application: ASGIApp, guard: BrowserGuard) -> None:
        self._application = application
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._guard.check(scope["method"], Headers(scope=scope))
        except Forbidden as error:
            await PlainTextResponse(f"{error.message}\n", 403)(scope, receive, send)
        else:
            await self._application(scope, receive, send)
