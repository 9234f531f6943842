"""Who may talk to the server: pages that it served itself, and programs that know its token."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
"""Where only this machine can reach a server."""
# The page runs the scripts of this server only, and no other page may show it.
_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; connect-src 'self' ws://{host}; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Refuses requests for another host, from another site's page, or without the token.

    A site could otherwise use the server through the browser that shows it, also under a name of its own that leads to
    this machine (DNS rebinding).

    Parameters
    ----------
    app : ASGI application
        What is guarded.
    token : str
        The token.
    host : str
        Where the server listens.
    port : int
        Its port.
    """

    def __init__(self, app: ASGIApp, token: str, host: str, port: int) -> None:
        self._app, self._token, self._port = app, token, port
        self._is_local = host in LOCAL_HOSTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if (fault := self._fault(scope, headers)) is None:
            await self._app(scope, receive, _with_headers(send, headers["host"]))
        elif scope["type"] == "websocket":
            # Before it was accepted: the handshake is answered with 403.
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
        else:
            await _refuse(send, *fault, as_text=scope["path"] == "/")

    def _fault(self, scope: Scope, headers: Mapping[str, str]) -> tuple[str, str] | None:
        """Return why a request is refused, and the remedy."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return f"host {host[:200]!r}: not that of this server", "open the address that distill play printed"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return f"origin {origin[:200]!r}: another site's page", "open the address that distill play printed"
        if not (scope["path"] == "/" or scope["path"].startswith("/api")) or self._knows_token(scope, headers):
            return None
        return "the token is missing or wrong", "open the address that distill play printed: it ends with the token"

    def _is_ours(self, host: str) -> bool:
        name, _, port = host.lower().rpartition(":")
        # Browsers leave out port 80.
        name, port = (name, port) if name and port.isdecimal() else (host.lower(), "80")
        if port != str(self._port):
            return False
        # A machine that others can reach has names that it does not know.
        return not self._is_local or name.strip("[]") in LOCAL_HOSTS

    def _knows_token(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return hmac.compare_digest(given.encode(), self._token.encode())


def _with_headers(send: Send, host: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(name.encode(), value.format(host=host).encode()) for name, value in _HEADERS.items()]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sending


async def _refuse(send: Send, error: str, tip: str, *, as_text: bool) -> None:
    body = (f"{error}\n{tip}\n" if as_text else json.dumps({"error": error, "tip": tip})).encode()
    kind = b"text/plain; charset=utf-8" if as_text else b"application/json"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
