"""Publication: recordings as Zarr groups, for programs that read Zarr over HTTP."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http import HTTPStatus

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.cores import CORES
from imgstore_zarr.errors import ImgStoreError, RecordingAccessError
from imgstore_zarr.serving.guard import Receive, Scope, Send, answer
from imgstore_zarr.serving.ranges import BadRangeError, Span, UnsatisfiableError, span_of
from imgstore_zarr.storage import RequestError
from imgstore_zarr.virtual_zarr import VirtualGroup

CROSS_ORIGIN = (
    (b"access-control-allow-origin", b"*"),
    (
        b"access-control-expose-headers",
        b"accept-ranges, content-length, content-range, etag, last-modified",
    ),
)
"""What lets pages of other sites read the answers, if they know the address."""

BODIES = 16
"""How many answers are in memory at most, each of one chunk; others wait."""

PATIENCE_SECONDS = 30.0
"""How long a request waits for that, before it is told to come again."""

_PIECE = 256 * 1024

_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
    (b"access-control-allow-headers", b"range, if-range, if-none-match, if-modified-since"),
    (b"access-control-allow-private-network", b"true"),
    (b"access-control-max-age", b"3600"),
    (b"content-length", b"0"),
)

Headers = list[tuple[bytes, bytes]]

_log = logging.getLogger("imgstore_zarr.serving")


class Publication:
    """An ASGI application that answers ``/<name>/<key>`` with the bytes of a key, and writes nothing.

    What is published is what the recordings were when it was made, so that its answers can be kept.

    Parameters
    ----------
    groups
        By name, what is published.
    """

    def __init__(self, groups: Mapping[str, VirtualGroup]) -> None:
        self._groups = groups
        self._bodies = asyncio.Semaphore(BODIES)
        self._threads = ThreadPoolExecutor(CORES + 1, "imgstore-serving")
        self._etag = f'"{secrets.token_hex(8)}"'
        self._modified = formatdate(usegmt=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer a request that a `Guard` let through."""
        if scope["method"] == "OPTIONS":
            await _start(send, HTTPStatus.NO_CONTENT, [*_PREFLIGHT])
            return
        _, name, *rest = f"{scope['path'].removeprefix(scope['root_path'])}/".split("/")
        key = "/".join(rest[:-1])
        group = self._groups.get(name)
        size = None if group is None else group.size(key)
        if group is None or size is None:
            await answer(send, HTTPStatus.NOT_FOUND, "no such key")
            return
        headers = {field.lower(): value.decode("latin-1") for field, value in scope["headers"]}
        if self._is_known(headers):
            await _start(send, HTTPStatus.NOT_MODIFIED, self._own_headers())
            return
        wanted = headers.get(b"range") if scope["method"] == "GET" else None
        if headers.get(b"if-range", self._etag) not in (self._etag, self._modified):
            wanted = None
        try:
            span = Span(0, size, size) if wanted is None else span_of(wanted, size)
        except BadRangeError as error:
            await answer(send, HTTPStatus.BAD_REQUEST, str(error))
            return
        except UnsatisfiableError as error:
            whole = (b"content-range", f"bytes */{size}".encode())
            await answer(send, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, str(error), [whole])
            return
        kind = b"application/json" if key.endswith("zarr.json") else b"application/octet-stream"
        fields: Headers = [
            *self._own_headers(),
            (b"content-type", kind),
            (b"content-length", str(len(span)).encode()),
        ]
        if wanted is not None:
            fields.append((b"content-range", span.header.encode()))
        if scope["method"] == "HEAD":
            await _start(send, HTTPStatus.OK, fields)
            return
        status = HTTPStatus.OK if wanted is None else HTTPStatus.PARTIAL_CONTENT
        await self._send(send, group, key, span, status, fields)

    def _own_headers(self) -> Headers:
        return [
            (b"etag", self._etag.encode()),
            (b"last-modified", self._modified.encode()),
            (b"accept-ranges", b"bytes"),
            (b"cache-control", b"private, max-age=3600"),
        ]

    def _is_known(self, headers: Mapping[bytes, str]) -> bool:
        """Whether the client has the answer already."""
        known = headers.get(b"if-none-match")
        if known is not None:
            return known == "*" or self._etag in known
        return headers.get(b"if-modified-since") == self._modified

    async def _send(
        self,
        send: Send,
        group: VirtualGroup,
        key: str,
        span: Span,
        status: HTTPStatus,
        headers: Headers,
    ) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._bodies.acquire()
        except TimeoutError:
            await _again(send, "too many requests at once")
            return
        try:
            body = await self._read(send, group, key, span)
            if body is not None:
                await _start(send, status, headers, body)
        finally:
            self._bodies.release()

    async def _read(
        self, send: Send, group: VirtualGroup, key: str, span: Span
    ) -> NDArray[np.uint8] | None:
        """Read what is asked for; where that fails, the answer has been sent.

        It is never 404: a Zarr reader takes that for a chunk of zeros.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, group.read, key, span.start, span.stop)
        except (RequestError, RecordingAccessError, MemoryError) as error:
            _log.warning("%s of %s cannot be read now: %s", key, group.name, error)
            await _again(send, f"cannot be read now ({type(error).__name__})")
        except (ImgStoreError, OSError) as error:
            # Messages have paths of this machine in them.
            _log.error("%s of %s cannot be read: %s", key, group.name, error)
            text = f"cannot be read ({type(error).__name__}); the log of the server says more"
            await answer(send, HTTPStatus.INTERNAL_SERVER_ERROR, text)
        return None


async def _again(send: Send, text: str) -> None:
    await answer(send, HTTPStatus.SERVICE_UNAVAILABLE, text, [(b"retry-after", b"5")])


async def _start(
    send: Send, status: HTTPStatus, headers: Headers, body: NDArray[np.uint8] | None = None
) -> None:
    """Send an answer in pieces, so that no more of it waits in buffers than the client takes."""
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    if body is not None:
        for at in range(0, len(body), _PIECE):
            piece = body[at : at + _PIECE].tobytes()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
