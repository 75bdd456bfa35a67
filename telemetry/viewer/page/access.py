"""Who may see a page: whoever is on this machine, and elsewhere who has its token."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse

from telemetry.viewer.page.addresses import is_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE: Final = "trainbus"
LOGIN: Final = "/api/login"
CLOSED: Final = "/api/"
"""What is below this path tells something of the runs."""

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
"""Of each answer: the page takes nothing from elsewhere, and no other page takes anything of it.

The charts set styles of their elements, which is why these are allowed in the page."""


class Access:
    """Refuses who may not see the page, before anything of it is touched.

    A page somewhere on the internet can make its own name point to this machine, and so let a
    browser here ask for what is served here ("DNS rebinding"). Hence a name in the header Host
    must be one of this machine, or an address, which nobody can make point elsewhere.

    Args:
        app: What is guarded.
        host: Where it is served.
        token: What has to be known to see anything of the runs; None for nothing.
    """

    def __init__(self, app: ASGIApp, *, host: str, token: str | None) -> None:
        self._app = app
        self._host = host
        self._token = token
        self._cookie = secrets.token_urlsafe(24)  # not the token: it can be in a shared link
        self._names = frozenset[str]()
        if not is_loopback(host):  # to look the last one up can take seconds
            names = (host, socket.gethostname(), socket.getfqdn())
            self._names = frozenset(name.lower().removesuffix(".") for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "websocket":  # there is none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = self._refusal(scope) or self._login(scope)
        await (answer or self._app)(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        name = _name_in(headers.get("host", ""))
        if not self._is_ours(name):
            return PlainTextResponse(
                f"The page is not known by the name {name!r}. Ask for it by its address.", 421
            )
        path = _path_of(scope)
        if self._token is None or path == LOGIN or not path.startswith(CLOSED):
            return None
        given = cookie_parser(headers.get("cookie", "")).get(self._cookie_name(scope), "")
        if secrets.compare_digest(given.encode(), self._cookie.encode()):
            return None
        return PlainTextResponse(
            "This page needs its token: open the address that telemetry view has printed.", 401
        )

    def _login(self, scope: Scope) -> PlainTextResponse | None:
        if _path_of(scope) != LOGIN:
            return None
        if scope["method"] != "POST":
            return PlainTextResponse("The token is sent by POST.", 405, {"allow": "POST"})
        given = Headers(scope=scope).get("authorization", "").removeprefix("Bearer ")
        expected = self._token or ""
        if self._token is not None and not secrets.compare_digest(
            given.encode(), expected.encode()
        ):
            return PlainTextResponse("This is not the token of this page.", 401)
        answer = PlainTextResponse("", 204)
        answer.set_cookie(self._cookie_name(scope), self._cookie, httponly=True, samesite="strict")
        return answer

    def _is_ours(self, name: str) -> bool:
        if is_loopback(name):
            return True
        if is_loopback(self._host):
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True

    def _cookie_name(self, scope: Scope) -> str:
        """One for each port: cookies are shared between the ports of a host."""
        server: Any = scope.get("server") or ("", 0)
        return f"{COOKIE}-{server[1]}"


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return sent


def _name_in(host: str) -> str:
    """The name or address in a header Host, without the port and the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().removesuffix(".")


def _path_of(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
