"""Recordings over HTTP, served by the installed script and read by programs that know only Zarr."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tensorstore
import xarray as xr
import zarr
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr.serving.guard import Guard, Message, Receive, Scope, Send
from imgstore_zarr.serving.publication import BODIES, Publication
from imgstore_zarr.serving.ranges import BadRangeError, UnsatisfiableError, span_of
from imgstore_zarr.storage import RequestError
from tests.conftest import Record
from tests.videos import scene

pytest.importorskip("uvicorn", reason="nothing can be served: pip install 'imgstore-zarr[viewer]'")

SHAPE = (256, 320)
COUNT = 30
SCRIPT = Path(sys.executable).parent / "imgstore-zarr"

IMPATIENT = """
import sys
from imgstore_zarr.serving import patience
patience.REQUEST_SECONDS = patience.STALLED_SECONDS = 1
from imgstore_zarr.cli import main
main()
"""


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Served:
    """A server that runs, and what it says."""

    process: subprocess.Popen[str]
    log_file: Path
    addresses: list[str] = field(default_factory=list)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def token(self) -> str:
        return urlsplit(self.addresses[0]).path.split("/")[1]

    @property
    def port(self) -> int:
        port = urlsplit(self.addresses[0]).port
        assert port is not None
        return port

    def path(self, key: str, recording: int = 0) -> str:
        return f"{urlsplit(self.addresses[recording]).path}/{key}"

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        ) as connection:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )

    def wait_for(self, text: str) -> None:
        for _ in range(600):
            if text in self.log:
                return
            time.sleep(0.1)
        raise AssertionError(f"{text!r} is not in {self.log!r}")

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, command: tuple[object, ...] = (SCRIPT,)) -> Served:
        log = tmp_path / f"log{len(started)}"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [*map(str, command), "serve", *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        started.append(process)
        served = Served(process, log)
        served.wait_for("serving until Ctrl-C")
        assert process.stdout is not None
        recordings = [argument for argument in arguments if isinstance(argument, Path)]
        served.addresses = [process.stdout.readline().rstrip("\n") for _ in recordings]
        return served

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=30)


@pytest.fixture
def motif(record: Record) -> Path:
    return record(scene(COUNT, SHAPE), format="avc1/mp4", chunksize=13)


@pytest.fixture
def plain(record: Record) -> Path:
    return record(scene(COUNT, SHAPE), format="raw/zarr", chunksize=13)


def frames_of(path: Path) -> NDArray[Any]:
    with imgstore_zarr.open(path) as store:
        return store.frames[:]


# Those who read.


def test_xarray_reads_a_motif_recording(serve: Serve, motif: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec needs aiohttp for http")
    served = serve(motif)
    assert served.addresses[0].startswith("http://127.0.0.1:")
    blocks: tuple[Any, ...] = (None, {})
    for chunks in blocks:
        data = xr.open_zarr(served.addresses[0], chunks=chunks)
        np.testing.assert_array_equal(data.image.values, frames_of(motif))
        np.testing.assert_array_equal(data.image[17, 3:50:2].values, frames_of(motif)[17, 3:50:2])
        assert data.frame_number.values.tolist() == [*range(COUNT)]
        assert data.frame_time.values.tolist() == [1e9 + i / 25 for i in range(COUNT)]


def test_obstore_reads(serve: Serve, motif: Path) -> None:
    obstore = pytest.importorskip("obstore.store", reason="obstore is not installed")
    served = serve(motif)
    client = {"allow_http": True}
    store = zarr.storage.ObjectStore(
        obstore.HTTPStore.from_url(served.addresses[0], client_options=client), read_only=True
    )
    np.testing.assert_array_equal(xr.open_zarr(store, chunks=None).image.values, frames_of(motif))


def test_tensorstore_reads(serve: Serve, motif: Path, plain: Path) -> None:
    served = serve(motif, plain)
    for address, path in zip(served.addresses, (motif, plain), strict=True):
        spec = {"driver": "zarr3", "kvstore": f"{address}/image/"}
        found = tensorstore.open(spec, read=True).result().read().result()
        np.testing.assert_array_equal(found, frames_of(path))


READ_BY_ZARRITA = """
import { writeFileSync } from "node:fs";
import * as zarr from "zarrita";
const group = await zarr.open(new zarr.FetchStore(process.argv[2]), { kind: "group" });
const image = await zarr.open(group.resolve("image"), { kind: "array" });
const whole = await zarr.get(image);
const one = await zarr.get(image, [17, null, zarr.slice(3, 50)]);
const numbers = await zarr.get(await zarr.open(group.resolve("frame_number"), { kind: "array" }));
writeFileSync("whole", whole.data);
writeFileSync("one", one.data);
console.log(JSON.stringify({
  shape: image.shape, names: image.dimensionNames ?? null, numbers: [...numbers.data].map(Number),
}));
"""


@pytest.fixture(scope="module")
def zarrita(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which node finds zarrita: that of the variable ZARRITA, else a new one."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        pytest.skip("zarrita.js needs node")
    folder = os.environ.get("ZARRITA")
    if folder:
        return Path(folder)
    if npm is None:
        pytest.skip("zarrita.js is not there (npm install zarrita), and ZARRITA not set")
    made = tmp_path_factory.mktemp("zarrita")
    with contextlib.suppress(subprocess.TimeoutExpired):
        command = [npm, "install", "--silent", "--no-fund", "--no-audit", "zarrita"]
        subprocess.run(command, cwd=made, capture_output=True, timeout=60, check=False)
    if not (made / "node_modules" / "zarrita").exists():
        pytest.skip("npm could not install zarrita")
    return made


def test_zarrita_reads_a_motif_recording(serve: Serve, motif: Path, zarrita: Path) -> None:
    script = zarrita / "read.mjs"
    script.write_text(READ_BY_ZARRITA)
    address = serve(motif).addresses[0]
    done = subprocess.run(
        ["node", script.name, address], cwd=zarrita, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    said = json.loads(done.stdout)
    expected = frames_of(motif)
    assert said["shape"] == [*expected.shape]
    assert said["numbers"] == [*range(COUNT)]
    whole = np.frombuffer((zarrita / "whole").read_bytes(), np.uint8)
    np.testing.assert_array_equal(whole.reshape(expected.shape), expected)
    one = np.frombuffer((zarrita / "one").read_bytes(), np.uint8)
    np.testing.assert_array_equal(one.reshape(SHAPE[0], 47), expected[17, :, 3:50])


def test_recordings_of_one_name(serve: Serve, record: Record, tmp_path: Path) -> None:
    first, second = record(scene(3)), record(scene(4))
    for path, parent in ((first, "a"), (second, "b")):
        (tmp_path / parent).mkdir()
        path.rename(tmp_path / parent / "my bees.zarr")
    served = serve(tmp_path / "a" / "my bees.zarr", tmp_path / "b" / "my bees.zarr" / "zarr.json")
    assert [address.rsplit("/", 1)[1] for address in served.addresses] == [
        "my-bees.zarr",
        "my-bees.zarr-2",
    ]
    counts = [
        json.loads(served.ask(served.path("frame_time/zarr.json", i)).body)["shape"] for i in (0, 1)
    ]
    assert counts == [[3], [4]]


# What HTTP says of parts, and of what is known already.


def test_parts(serve: Serve, plain: Path) -> None:
    served = serve(plain)
    frame = math.prod(SHAPE)
    whole = scene(COUNT, SHAPE)[12:24].tobytes()
    path = served.path("image/c/1/0/0")

    answer = served.ask(path)
    assert (answer.status, answer.body) == (200, whole)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["access-control-allow-origin"] == "*"
    etag, modified = answer.headers["etag"], answer.headers["last-modified"]

    for header, start, stop in (
        (f"bytes={frame}-{2 * frame - 1}", frame, 2 * frame),
        ("bytes=5-", 5, len(whole)),
        ("bytes=-7", len(whole) - 7, len(whole)),
        ("bytes=0-0", 0, 1),
        ("bytes=3-99999999999999", 3, len(whole)),
        ("bytes=-99999999999999", 0, len(whole)),
    ):
        answer = served.ask(path, headers={"Range": header})
        assert (answer.status, answer.body) == (206, whole[start:stop])
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
    for header in (f"bytes={len(whole)}-", "bytes=99999999999999-", "bytes=-0"):
        answer = served.ask(path, headers={"Range": header})
        assert answer.status == 416
        assert answer.headers["content-range"] == f"bytes */{len(whole)}"
    for header in ("bytes=", "bytes=5-3", "lines=1-2", "bytes=0-1,3-4", f"bytes={'9' * 5000}-"):
        assert served.ask(path, headers={"Range": header}).status == 400

    answer = served.ask(path, "HEAD", {"Range": "bytes=0-0"})
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(whole))
    for header, value in (
        ("If-None-Match", etag),
        ("If-None-Match", "*"),
        ("If-Modified-Since", modified),
    ):
        answer = served.ask(path, headers={header: value})
        assert (answer.status, answer.body) == (304, b"")
    part = {"Range": "bytes=0-9"}
    assert served.ask(path, headers=part | {"If-Range": etag}).status == 206
    assert served.ask(path, headers=part | {"If-Range": '"another"'}).body == whole


def test_pages_of_other_sites_may_read(serve: Serve, plain: Path) -> None:
    served = serve(plain)
    asked = {
        "Origin": "https://example.org",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "range",
    }
    answer = served.ask(served.path("zarr.json"), "OPTIONS", asked)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "GET" in answer.headers["access-control-allow-methods"]
    assert "range" in answer.headers["access-control-allow-headers"]
    for path, status in (("zarr.json", 200), ("nothing", 404)):
        answer = served.ask(served.path(path), headers={"Origin": "https://example.org"})
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "content-range" in answer.headers["access-control-expose-headers"]


def brute(header: str, size: int) -> range | None:
    """The places of ``bytes=a-b`` in an object, found one by one."""
    first, last = header.removeprefix("bytes=").split("-")
    places = range(size)
    if not first:
        places = places[-int(last) :] if int(last) else range(0)
    else:
        places = range(
            sum(i < int(first) for i in range(size)),
            sum(i <= (int(last) if last else size) for i in range(size)),
        )
    return places if len(places) else None


def test_every_range_of_a_small_object() -> None:
    for size in range(5):
        for first in ("", *map(str, range(7))):
            for last in ("", *map(str, range(7))):
                header = f"bytes={first}-{last}"
                if not (first or last) or (first and last and int(last) < int(first)):
                    with pytest.raises(BadRangeError):
                        span_of(header, size)
                elif (places := brute(header, size)) is None:
                    with pytest.raises(UnsatisfiableError):
                        span_of(header, size)
                else:
                    span = span_of(header, size)
                    assert range(span.start, span.stop) == places


# Those who should not.


def test_what_is_refused(serve: Serve, plain: Path) -> None:
    served = serve(plain)
    key = served.path("zarr.json")
    name = plain.name
    here = f"localhost:{served.port}"
    cases: list[tuple[int, str, str, dict[str, str], bytes | None]] = [
        (403, "GET", "/", {}, None),
        (403, "GET", f"/{name}/zarr.json", {}, None),
        (403, "GET", f"/{served.token[:-1]}/{name}/zarr.json", {}, None),
        (403, "GET", f"/{served.token}x/{name}/zarr.json", {}, None),
        (403, "GET", f"//{served.token}/{name}/zarr.json", {}, None),
        (403, "OPTIONS", "/", {}, None),
        (403, "GET", f"/x/../{served.token}/{name}/zarr.json", {}, None),
        (421, "GET", key, {"Host": "evil.example"}, None),
        (421, "GET", key, {"Host": f"evil.example:{served.port}"}, None),
        (421, "GET", key, {"Host": "127.0.0.1.evil.example"}, None),
        (421, "GET", key, {"Host": "localhost@evil.example"}, None),
        (421, "GET", key, {"Host": ""}, None),
        (405, "POST", key, {}, b""),
        (405, "PUT", key, {}, b"x"),
        (405, "DELETE", key, {}, None),
        (405, "TRACE", key, {}, None),
        (413, "GET", key, {}, b"x" * 10),
        (413, "GET", key, {"Transfer-Encoding": "chunked"}, None),
        (400, "GET", served.path("../../etc/passwd"), {}, None),
        (400, "GET", served.path("%2e%2e/%2e%2e/etc/passwd"), {}, None),
        (400, "GET", served.path("..%2fzarr.json"), {}, None),
        (400, "GET", served.path("..%5czarr.json"), {}, None),
        (400, "GET", served.path("zarr.json%00"), {}, None),
        (400, "GET", served.path("zarr.json%0d%0aX: y"), {}, None),
        (404, "GET", served.path("metadata.yaml"), {}, None),
        (404, "GET", served.path(""), {}, None),
        (404, "GET", served.path("image/c/3/0/0"), {}, None),
        (404, "GET", f"/{served.token}/{plain}/zarr.json", {}, None),
        (404, "GET", f"/{served.token}/another/zarr.json", {}, None),
        (404, "GET", f"/{served.token}", {}, None),
        (414, "GET", served.path("x" * 5000), {}, None),
    ]
    for status, method, path, headers, body in cases:
        before = served.log.count("\n")
        answer = served.ask(path.replace(" ", "%20"), method, headers, body)
        assert answer.status == status, (method, path, headers)
        assert len(answer.body) < 100
        for secret in (str(plain.parent), served.token, "Traceback"):
            assert secret.encode() not in answer.body
        lines = served.log.split("\n")[before:-1]
        assert len(lines) == 1
        assert f"({status})" in lines[0]
    assert served.token not in served.log
    assert "Traceback" not in served.log
    for host in (here, "localhost", "[::1]:80", f"127.0.0.1:{served.port}"):
        assert served.ask(key, headers={"Host": host}).status == 200
    assert frames_of(plain).shape[0] == COUNT


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /" + b"x" * 100_000,
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_request(serve: Serve, plain: Path, sent: bytes) -> None:
    served = serve(plain)
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(sent)
        found = received(connection)
    assert found.startswith(b"HTTP/1.1 4")
    served.wait_for("Invalid HTTP request")
    assert "Traceback" not in served.log
    assert served.ask(served.path("zarr.json")).status == 200


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side ends, in whatever way."""
    found = bytearray()
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while part := connection.recv(2**20):
            found += part
    return bytes(found)


def test_those_who_send_no_request_are_dropped(serve: Serve, plain: Path) -> None:
    served = serve(plain, command=(sys.executable, "-c", IMPATIENT))
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=60))
            for _ in range(3)
        ]
        begun = f"GET {served.path('zarr.json')} HTTP/1.1\r\nHost: localhost\r\n".encode()
        connections[1].sendall(begun)
        # The time of a second request begins anew, and ends too.
        connections[2].sendall(begun + b"\r\n")
        assert connections[2].recv(12) == b"HTTP/1.1 200"
        connections[2].sendall(begun)
        assert received(connections[0]) == b""
        assert received(connections[1]) == b""
        assert received(connections[2]).count(b"HTTP/1.1") == 0
    assert served.log.count("sent no request") == 3
    assert served.ask(served.path("zarr.json")).status == 200


def stalled(served: Served, stack: contextlib.ExitStack) -> socket.socket:
    """Somebody who asks for 60 chunks at once, and takes none."""
    connection = stack.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", served.port))
    request = f"GET {served.path('image/c/1/0/0')} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connection.sendall(request.encode() * 60)
    return connection


def test_those_who_take_no_answer_are_dropped(serve: Serve, plain: Path) -> None:
    served = serve(plain, command=(sys.executable, "-c", IMPATIENT))
    with contextlib.ExitStack() as stack:
        # More than there are answers in memory at a time: whoever comes then waits until they are gone.
        connections = [stalled(served, stack) for _ in range(BODIES + 4)]
        assert served.ask(served.path("image/c/0/0/0")).status == 200
        for _ in range(600):
            if served.log.count("took no answer") == len(connections):
                break
            time.sleep(0.1)
        assert served.log.count("took no answer") == len(connections)
        for connection in connections:
            assert len(received(connection)) < 60 * 12 * math.prod(SHAPE)
    assert served.ask(served.path("image/c/0/0/0")).status == 200
    assert "Traceback" not in served.log


def test_too_many_connections(serve: Serve, plain: Path) -> None:
    served = serve(plain)
    with contextlib.ExitStack() as stack:
        for _ in range(140):
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=60))
        assert served.ask(served.path("zarr.json")).status == 503
    for _ in range(100):
        if served.ask(served.path("zarr.json")).status == 200:
            return
        time.sleep(0.1)
    raise AssertionError("still too many")


# Frames that cannot be read.


@pytest.mark.parametrize("format", ["raw/zarr", "avc1/mp4"])
def test_damage_is_no_missing_chunk(serve: Serve, record: Record, format: str) -> None:
    path = record(scene(COUNT, SHAPE), format=format, chunksize=13)
    expected = frames_of(path)
    (path / ("image/c/1/0/0" if format == "raw/zarr" else "000001.mp4")).unlink()
    served = serve(path)
    answer = served.ask(served.path("image/c/1/0/0"))
    assert answer.status == 500
    assert str(path.parent).encode() not in answer.body
    assert answer.headers["cache-control"] == "no-store"
    assert b"ChunkMissingError" in answer.body
    served.wait_for("image/c/1/0/0")
    assert "chunk 1" in served.log
    assert "Traceback" not in served.log
    # The part of it that is there.
    first = served.ask(served.path("image/c/1/0/0"), headers={"Range": "bytes=0-81919"})
    assert (first.status, first.body) == (206, expected[12].tobytes())
    aiohttp = pytest.importorskip("aiohttp", reason="fsspec needs aiohttp for http")
    image = xr.open_zarr(served.addresses[0], chunks=None).image
    np.testing.assert_array_equal(image[:12].values, expected[:12])
    with pytest.raises(aiohttp.ClientResponseError, match="500"):
        image[12:14].values  # noqa: B018


class Failing:
    """A group with one key, of which reading fails."""

    name = "/secret/place"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def size(self, key: str) -> int | None:
        return 10 if key == "x/c/0" else None

    def read(self, key: str, start: int, stop: int) -> NDArray[np.uint8]:
        raise self._error


def asked(application: Any, path: str, host: str = "localhost") -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": [(b"host", host.encode())],
        "client": ("127.0.0.1", 5),
    }
    asyncio.run(application(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError(5, "busy"), 503),
        (MemoryError(), 503),
        (imgstore_zarr.RecordingAccessError("/secret/place"), 503),
        (imgstore_zarr.CorruptChunkError("/secret/place"), 500),
        (imgstore_zarr.UnsupportedFormatError("/secret/place"), 500),
        (OSError(5, "I/O error", "/secret/place"), 500),
    ],
)
def test_errors_of_reading(error: Exception, status: int) -> None:
    group: Any = Failing(error)
    sent = asked(Guard(Publication({"r": group}), "token"), "/token/r/x/c/0")
    assert sent[0]["status"] == status
    assert b"secret" not in sent[1]["body"]


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["root_path"].encode()})


def test_names_matter_only_where_others_cannot_connect() -> None:
    for host, name, status in (
        ("127.0.0.1", "lab.example", 421),
        ("localhost", "lab.example", 421),
        ("::1", "lab.example", 421),
        ("::1", "[::1]:80", 200),
        ("127.0.0.2", "127.0.0.2:80", 200),
        ("192.0.2.1", "lab.example", 200),
        ("0.0.0.0", "lab.example", 200),
    ):
        sent = asked(Guard(hello, "token", host), "/token", name)
        assert sent[0]["status"] == status, (host, name)
    assert sent[1]["body"] == b"/token"


def test_web_sockets_are_refused() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/token", "headers": []}
    asyncio.run(Guard(hello, "token")(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


# The command.


def test_interrupted_it_ends(serve: Serve, plain: Path) -> None:
    served = serve(plain)
    with contextlib.ExitStack() as stack:
        stalled(served, stack)
        assert served.ask(served.path("zarr.json")).status == 200
        assert served.end() == 0
    assert served.log == "serving until Ctrl-C\nended\n"
    assert served.process.stdout is not None
    assert served.process.stdout.read() == ""


def failed(*arguments: object, command: tuple[object, ...] = (SCRIPT,)) -> str:
    done = subprocess.run(
        [*map(str, command), "serve", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_port_that_is_taken(plain: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = failed(plain, "--port", port)
    assert f"port {port} of 127.0.0.1 is taken" in said
    assert "--port" in said


def test_a_host_that_there_is_not(plain: Path) -> None:
    said = failed(plain, "--host", "nowhere.invalid")
    assert "'nowhere.invalid'" in said
    assert "--host" in said


def test_the_port_that_was_asked_for(serve: Serve, plain: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    assert serve("--port", port, plain).port == port


def test_bad_locations(plain: Path, tmp_path: Path) -> None:
    assert str(tmp_path / "nothing") in failed(plain, tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    assert str(tmp_path / "folder") in failed(tmp_path / "folder")
    done = subprocess.run(
        [SCRIPT, "serve"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "LOCATION" in done.stderr


def test_without_a_web_server(plain: Path) -> None:
    without = (
        "import sys; sys.modules['uvicorn'] = None; from imgstore_zarr.cli import main; main()"
    )
    said = failed(plain, command=(sys.executable, "-c", without))
    assert "pip install 'imgstore-zarr[viewer]'" in said
