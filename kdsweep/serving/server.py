"""Serves a read-only web application on loopback, or elsewhere behind a token."""

from __future__ import annotations

import errno
import hmac
import ipaddress
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import uvicorn
from starlette.datastructures import URL
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kdsweep.errors import InputError, Interrupted

TOKEN_VARIABLE = "KDSWEEP_TOKEN"
SHORTEST_TOKEN = 8
_READING = ("GET", "HEAD")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Endpoint:
    """An address to listen on.

    Attributes:
        listener: The bound socket.
        host: The host as the user gave it.
        token: Token that every request needs; empty if none is needed.
    """

    listener: socket.socket
    host: str
    token: str

    @property
    def port(self) -> int:
        """The port, also if the system chose it."""
        port: int = self.listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """The address to open, with the token."""
        host = socket.gethostname() if _is_wildcard(self.host) else self.host
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    @property
    def names(self) -> list[str]:
        """Accepted values of the Host header, without the port."""
        names = {"localhost", "127.0.0.1", "::1", self.host}
        if self.token:
            names |= {socket.gethostname(), socket.getfqdn(), *_own_addresses()}
        return sorted(f"[{name}]" if ":" in name else name.lower() for name in names if not _is_wildcard(name))


def listen(host: str, port: int, token: str) -> Endpoint:
    """Bind an address.

    Args:
        host: A name or an address of this machine; 0.0.0.0 is all of its addresses.
        port: The port; 0 chooses a free one.
        token: Token that every request needs; may be empty on loopback.

    Raises:
        InputError: If the address is not loopback and there is no token, or if it cannot be bound.
    """
    if token and not (len(token) >= SHORTEST_TOKEN and token.isascii() and token.isalnum()):
        raise InputError(
            f"--token: found {len(token)} characters; accepted: at least {SHORTEST_TOKEN} letters and digits"
        )
    host = host.strip() or "127.0.0.1"
    family, address = _resolved(host, port)
    if not token and not ipaddress.ip_address(address).is_loopback:
        raise InputError(
            f"--host {host}: others could read the sweep; accepted: 127.0.0.1, or with --token or {TOKEN_VARIABLE}"
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"--port {port}: in use; accepted: a free port, or 0 to choose one") from error
        raise InputError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return Endpoint(listener, host, token)


def serve(app: ASGIApp, endpoint: Endpoint, started: Callable[[], None]) -> NoReturn:
    """Serve an application until it is interrupted.

    Args:
        app: The application. It sees only requests that read, for a known host and with the right token.
        endpoint: Where to listen.
        started: Called before the first request is served.

    Raises:
        Interrupted: Always, at the end.
    """
    server = server_of(app, endpoint)
    started()
    with endpoint.listener, suppress(KeyboardInterrupt):
        server.run(sockets=[endpoint.listener])
    raise Interrupted("stopped; a running sweep goes on")


def server_of(app: ASGIApp, endpoint: Endpoint) -> uvicorn.Server:
    """The server of `serve`."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = uvicorn.Config(
        guarded(app, endpoint),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def guarded(app: ASGIApp, endpoint: Endpoint) -> ASGIApp:
    """Wrap an application so that it sees only requests that read, for a known host and with the right token."""
    inner = _Guard(app, endpoint.token, f"kdsweep-token-{endpoint.port}")
    return TrustedHostMiddleware(inner, allowed_hosts=endpoint.names, www_redirect=False)


class _Guard:
    """Refuses requests that write or lack the token, and adds headers that protect the page."""

    def __init__(self, app: ASGIApp, token: str, cookie: str):
        self._app = app
        self._token = token
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def protect(message: Message) -> None:
            if message["type"] == "http.response.start":
                have = {name.lower() for name, _ in message["headers"]}
                new = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in new if pair[0] not in have)]
            await send(message)

        answer = self._refusal(HTTPConnection(scope), scope["method"])
        await (answer or self._app)(scope, receive, protect)

    def _refusal(self, request: HTTPConnection, method: str) -> Response | None:
        """The answer to a request that must not reach the application; None for the others."""
        if method not in _READING:
            return PlainTextResponse("read-only\n", 405, {"Allow": ", ".join(_READING)})
        if not self._token:
            return None
        asked = request.query_params.get("token", "")
        if asked and self._is_right(asked):
            # Keeps the token out of the address bar and of the history.
            clean = URL(scope=request.scope).remove_query_params("token")
            path = "/" + clean.path.lstrip("/")  # two slashes would name another server
            answer = RedirectResponse(f"{path}?{clean.query}" if clean.query else path, 303)
            answer.set_cookie(self._cookie, asked, httponly=True, samesite="lax")
            return answer
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._is_right(request.cookies.get(self._cookie, "")) or self._is_right(bearer):
            return None
        return PlainTextResponse("this page needs its token: open the address that kdsweep printed\n", 401)

    def _is_right(self, found: str) -> bool:
        return hmac.compare_digest(found.encode(), self._token.encode())


def _resolved(host: str, port: int) -> tuple[Any, str]:
    """The address family and the address of a host."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--host {host}: {reason}; accepted: an address or a name of this machine") from error
    family, _, _, _, address = found[0]
    return family, str(address[0])


def _is_wildcard(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def _own_addresses() -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return set()
