"""Guard: what a server on this machine refuses before an application sees the request.

Others on the machine can connect, and every web page that is open in a browser can send requests. So a
request needs the token, which nobody can guess, and the name of this machine, which a page does not
have that gave its own name the address 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that change nothing."""

LONGEST_PATH = 4096

_LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/@\s]+)(:\d{1,5})?")
_SHOWN = 200

_log = logging.getLogger("imgstore_zarr.serving")


def new_token() -> str:
    """Return a secret that can stand in an address."""
    return secrets.token_urlsafe(24)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


@dataclass(frozen=True)
class Guard:
    """Lets through requests with the token, for this machine, by the methods that there are.

    An application sees the token as ``root_path``, so that its own routes begin after it.

    Attributes
    ----------
    app
        The ASGI application.
    token
        The first part of every path.
    host
        The address that is listened on. On a loopback address, requests for other names are refused.
    methods
        What can be asked for.
    longest_body
        How many bytes a request may send along.
    headers
        What every answer gets.
    """

    app: Application
    token: str = field(repr=False)
    host: str = "127.0.0.1"
    methods: frozenset[str] = READING
    longest_body: int = 0
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the application answer it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                reason = message.pop("reason", "")
                if 400 <= message["status"] < 500:
                    self._report(scope, message["status"], reason)
                message["headers"] = [*message["headers"], *_HEADERS, *self.headers]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            status, reason = refusal
            allowed = (b"allow", ", ".join(sorted(self.methods)).encode())
            headers = [allowed] if status == HTTPStatus.METHOD_NOT_ALLOWED else []
            # What was sent along is not read, so that nothing can follow on this connection.
            headers.append((b"connection", b"close"))
            await answer(send_with_headers, status, reason, headers)
            return
        await self.app({**scope, "root_path": f"/{self.token}"}, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[HTTPStatus, str] | None:
        """Why a request is refused, None where it is not."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        path: str = scope["path"]
        if not self._is_for_here(headers.get(b"host", b"").decode("latin-1")):
            return HTTPStatus.MISDIRECTED_REQUEST, "another host's name"
        if len(path) > LONGEST_PATH:
            return HTTPStatus.REQUEST_URI_TOO_LONG, "a path that is too long"
        first, *rest = path.removeprefix("/").split("/")
        if not secrets.compare_digest(first.encode(), self.token.encode()):
            return HTTPStatus.FORBIDDEN, "not the token"
        if scope["method"] not in self.methods:
            return HTTPStatus.METHOD_NOT_ALLOWED, "not a method that can be used here"
        if any(part in (".", "..") or not _is_plain(part) for part in rest):
            return HTTPStatus.BAD_REQUEST, "a path that leads elsewhere"
        length = headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers or int(length) > self.longest_body:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too much sent along"
        return None

    def _is_for_here(self, host: str) -> bool:
        if not is_loopback(self.host):
            return True
        found = _HOST.fullmatch(host.lower())
        return found is not None and found[1] in _LOCAL_NAMES | {self.host}

    def _report(self, scope: Scope, status: int, reason: str) -> None:
        path = ascii(scope["path"].replace(self.token, "...")[:_SHOWN])
        client = (scope.get("client") or ("somebody",))[0]
        because = f": {reason}" if reason else ""
        _log.warning(
            "refused (%d) %s %s from %s%s", status, ascii(scope["method"]), path, client, because
        )


# The address is a secret, and what is sent is never to be taken for something else.
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


def _is_plain(part: str) -> bool:
    return part.isprintable() and "\\" not in part


async def answer(
    send: Send, status: int, text: str, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send a line of text that says what a request lacks; nobody keeps it."""
    body = f"{text}\n".encode()
    own = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    # The guard takes the reason off again.
    start = {"type": "http.response.start", "status": int(status), "reason": text}
    await send({**start, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})
