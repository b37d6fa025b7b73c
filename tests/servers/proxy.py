"""A server in front of another one that counts requests, delays answers, and breaks them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import socket
import struct
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

_PIECE = 2**18


@dataclass
class Request:
    """A request that came.

    Attributes
    ----------
    method, key, query, range
        ``GET``, the path without its first slash, what follows ``?``, and the header ``Range``.
    at_once
        How many were not answered yet when it came, with itself.
    taken, sent
        Bytes of its body, and of the body of the answer.
    status
        Of the answer; 0 where there was none.
    broken
        Whether a fault hit it.
    """

    method: str
    key: str
    query: str
    range: str
    at_once: int = 0
    taken: int = 0
    sent: int = 0
    status: int = 0
    broken: bool = False


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and with which requests.

    Attributes
    ----------
    method, key, range
        Regular expressions that the request must match.
    skip, times
        How many such requests pass before, and how many are hit then; None: all.
    delay
        Seconds before anything happens.
    status, body
        Answered in place of the server.
    cut
        The connection ends after so many bytes of the answer's body.
    reset
        It ends by a reset: without an answer, unless `cut` is given.
    done
        With `status` or `reset`: the server did what was asked for, and its answer is lost.
    """

    method: str = ""
    key: str = ""
    range: str = ""
    skip: int = 0
    times: int | None = 1
    delay: float = 0.0
    status: int | None = None
    body: str = ""
    cut: int | None = None
    reset: bool = False
    done: bool = False

    def matches(self, request: Request) -> bool:
        """Whether a request is of the kind."""
        pairs = (
            (self.method, request.method),
            (self.key, request.key),
            (self.range, request.range),
        )
        return all(re.search(pattern, text) for pattern, text in pairs)


class _Head:
    """The first lines of a request or of an answer."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        self.fields = {name.lower(): value.strip() for name, _, value in pairs}

    @classmethod
    async def of(cls, reader: asyncio.StreamReader) -> _Head | None:
        """Read one; None where the connection has ended."""
        try:
            return cls(await reader.readuntil(b"\r\n\r\n"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    @property
    def has_length(self) -> bool:
        return "content-length" in self.fields or "transfer-encoding" in self.fields

    async def body(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        """Iterate over the body, as it lies on the wire."""
        if "chunked" in self.fields.get("transfer-encoding", ""):
            size = -1
            while size:
                line = await reader.readuntil(b"\r\n")
                size = int(line.partition(b";")[0], 16)
                yield line + await reader.readexactly(size + 2)
            return
        left = int(self.fields.get("content-length", 0))
        while left:
            piece = await reader.read(min(left, _PIECE))
            if not piece:
                raise ConnectionError("the server broke off")
            left -= len(piece)
            yield piece


class _Proxy:
    def __init__(self, server: str) -> None:
        address = urlsplit(server)
        self._host, self._port = address.hostname, address.port
        self.latency = 0.0
        self.log: list[Request] = []
        self._in_flight = 0
        self._faults: list[Fault] = []
        self._seen: list[int] = []

    def set_faults(self, faults: list[Fault]) -> None:
        self._seen = [0] * len(faults)
        self._faults = faults

    def _fault(self, request: Request) -> Fault | None:
        found = None
        for i, fault in enumerate(self._faults):
            if fault.matches(request):
                self._seen[i] += 1
                count = self._seen[i] - fault.skip
                if found is None and count > 0 and (fault.times is None or count <= fault.times):
                    found = fault
        return found

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what comes on a connection."""
        upstream = _Upstream(self._host, self._port)
        try:
            while head := await _Head.of(reader):
                if not await self._answer(head, reader, writer, upstream):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            upstream.close()
            writer.close()

    async def _answer(
        self,
        head: _Head,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: _Upstream,
    ) -> bool:
        """Answer one request; whether the connection goes on."""
        method, target, _ = head.first.split(" ")
        parts = urlsplit(target)
        key = unquote(parts.path).lstrip("/")
        request = Request(method, key, parts.query, head.fields.get("range", ""))
        self.log.append(request)
        self._in_flight += 1
        request.at_once = self._in_flight
        try:
            if "expect" in head.fields:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                head.raw = re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", head.raw, count=1)
            body = b"".join([piece async for piece in head.body(reader)])
            request.taken = len(body)
            fault = self._fault(request)
            request.broken = fault is not None
            if delay := self.latency + (fault.delay if fault else 0):
                await asyncio.sleep(delay)
            if fault is None or fault.done or not (fault.status or _is_lost(fault)):
                answer = await upstream.ask(head.raw + body)
            else:
                answer = None
            if fault is not None and (fault.status or _is_lost(fault)):
                if answer is not None:
                    _ = [piece async for piece in answer.body(upstream.reader)]
                if _is_lost(fault):
                    _reset(writer)
                    return False
                request.status = fault.status or 0
                return await _say(writer, request.status, fault.body, method)
            if answer is None:
                request.status = 502
                return await _say(writer, 502, "the server does not answer", method)
            return await self._hand_on(answer, request, writer, upstream, fault)
        finally:
            self._in_flight -= 1

    async def _hand_on(
        self,
        answer: _Head,
        request: Request,
        writer: asyncio.StreamWriter,
        upstream: _Upstream,
        fault: Fault | None,
    ) -> bool:
        request.status = int(answer.first.split(" ")[1])
        writer.write(answer.raw)
        if request.method == "HEAD" or request.status in (204, 304):
            await writer.drain()
            return True
        cut = fault.cut if fault is not None else None
        async for piece in answer.body(upstream.reader):
            part = piece if cut is None else piece[: max(0, cut - request.sent)]
            request.sent += len(part)
            writer.write(part)
            await writer.drain()
            if cut is not None and request.sent >= cut:
                upstream.close()
                if fault is not None and fault.reset:
                    await asyncio.sleep(0.05)  # else what was sent would be lost as well
                    _reset(writer)
                return False
        return answer.has_length


class _Upstream:
    """A connection to the server, made anew when the server has ended it."""

    def __init__(self, host: str | None, port: int | None) -> None:
        self._address = host, port
        self._writer: asyncio.StreamWriter | None = None
        self._is_ending = False
        self.reader: Any = None

    async def ask(self, data: bytes) -> _Head | None:
        """Send a request; return the head of the answer."""
        for fresh in (False, True):
            try:
                if self._writer is None or fresh or self._is_ending:
                    self.close()
                    self.reader, self._writer = await asyncio.open_connection(
                        *self._address, limit=2**20
                    )
                self._writer.write(data)
                await self._writer.drain()
            except ConnectionError:
                continue
            if answer := await _Head.of(self.reader):
                self._is_ending = answer.fields.get("connection", "").lower() == "close"
                return answer
        return None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _is_lost(fault: Fault) -> bool:
    return fault.reset and fault.cut is None


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a machine does that has crashed."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _say(writer: asyncio.StreamWriter, status: int, text: str, method: str) -> bool:
    data = text.encode()
    head = (
        f"HTTP/1.1 {status} Fault\r\nContent-Type: application/xml\r\nContent-Length: {len(data)}"
    )
    writer.write(f"{head}\r\n\r\n".encode() + (b"" if method == "HEAD" else data))
    await writer.drain()
    return True


def _obey(proxy: _Proxy) -> None:
    """Do what the tests say, a line each; end when they have."""
    for line in sys.stdin:
        said: Any = None
        match json.loads(line):
            case ["latency", seconds]:
                proxy.latency = seconds
            case ["faults", faults]:
                proxy.set_faults([Fault(**fault) for fault in faults])
            case ["forget"]:
                proxy.log = []
            case ["log"]:
                said = [dataclasses.asdict(request) for request in [*proxy.log]]
        print(json.dumps(said), flush=True)
    os._exit(0)


async def _main(server: str) -> None:
    proxy = _Proxy(server)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=2**20, backlog=512)
    print(listening.sockets[0].getsockname()[1], flush=True)
    threading.Thread(target=_obey, args=(proxy,), daemon=True).start()
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
