"""Who may ask: the right host name, the token where one is needed, and no page of another site.

On the loopback address a browser is trusted, but only under the loopback's own names, or any site could point a name of
its own at it and read along (DNS rebinding). Anywhere else, and where runs can be stopped, a token is needed; it comes
once in the address, is kept in a cookie, and leaves the address at once.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_COOKIE = "lora-search-token"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """What a request needs.

    Attributes:
        host: the address the server is bound to.
        token: what a browser must bring; None where none is needed.
    """

    host: str = "127.0.0.1"
    token: str | None = None

    def knows(self, host_header: str) -> bool:
        """Whether a ``Host`` header names this server and not someone else's domain."""
        name = _host_name(host_header)
        if name in ("localhost", "127.0.0.1", "::1") or name == self.host.lower():
            return True
        return not is_loopback(self.host) and _is_address(name)

    def admits(self, request: Request) -> bool:
        """Whether the request brings the token."""
        if self.token is None:
            return True
        brought = (
            request.cookies.get(cookie_of(request), ""),
            request.headers.get("authorization", "").removeprefix("Bearer "),
        )
        return any(hmac.compare_digest(one.encode(), self.token.encode()) for one in brought)


def cookie_of(request: Request) -> str:
    """The name of the cookie that holds the token: with the port by which the browser asks.

    A browser brings a cookie to all ports of a host, and each dashboard has a token of its own.
    """
    port = request.headers.get("host", "").rpartition(":")[2]
    return f"{_COOKIE}-{port}" if port.isdecimal() else _COOKIE


def is_loopback(host: str) -> bool:
    """``127.0.0.1`` and its like, which only this machine reaches."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _host_name(header: str) -> str:
    """``[::1]:8787`` -> ``::1``, ``localhost:8787`` -> ``localhost``."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.rpartition(":")[0].lower() if header.rpartition(":")[2].isdigit() else header.lower()


class Guard:
    """The middleware that keeps these rules, and puts the policy on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(Request(scope))

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (refusal or self.app)(scope, receive, guarded)

    def _refusal(self, request: Request) -> Response | None:
        if not self.access.knows(request.headers.get("host", "")):
            return PlainTextResponse("This dashboard does not go by that name.\n", 421)
        if request.headers.get("sec-fetch-site") == "cross-site" and (
            request.method != "GET" or request.headers.get("sec-fetch-mode") != "navigate"
        ):
            return PlainTextResponse("Asked by another site.\n", 403)
        offered = request.query_params.get("token")
        if offered is not None and self.access.token is not None and request.method == "GET":
            if not hmac.compare_digest(offered.encode(), self.access.token.encode()):
                return PlainTextResponse("That is not the token of this dashboard.\n", 403)
            answer = RedirectResponse(str(request.url.remove_query_params("token").replace(scheme="", netloc="")), 303)
            answer.set_cookie(cookie_of(request), offered, httponly=True, samesite="strict")
            return answer
        if not self.access.admits(request):
            return PlainTextResponse("Open the address that lora-search dashboard printed: it holds the token.\n", 403)
        return None
