"""The servers of the tests do what the tests take for granted, by the standard library's client."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import servers
from tests.servers import Fault, Proxy

DATA = bytes(range(256)) * 40


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """A proxy before a web server that has one file."""
    (tmp_path / "a b").write_bytes(DATA)
    proxy = servers.proxy_of(servers.web(tmp_path).server)
    yield proxy
    proxy.forget()


def connected(proxy: Proxy) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=30)


def get(connection: http.client.HTTPConnection, **headers: str) -> tuple[int, bytes]:
    connection.request("GET", "/a%20b?x=1", headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_requests_are_handed_on_and_counted(proxy: Proxy) -> None:
    connection = connected(proxy)
    assert get(connection) == (200, DATA)
    socket = connection.sock
    assert get(connection, Range="bytes=3-9") == (206, DATA[3:10])
    connection.request("HEAD", "/a%20b")
    assert connection.getresponse().read() == b""
    assert connection.sock is socket, "the connection is kept"
    connection.request("GET", "/nothing")
    answer = connection.getresponse()
    assert (answer.status, answer.reason) == (404, "Not Found")
    answer.read()
    seen = [(r.method, r.key, r.query, r.range, r.status) for r in proxy.requests()]
    assert seen == [
        ("GET", "a b", "x=1", "", 200),
        ("GET", "a b", "x=1", "bytes=3-9", 206),
        ("HEAD", "a b", "", "", 200),
        ("GET", "nothing", "", "", 404),
    ]
    assert [request.sent for request in proxy.requests("GET", "a b")] == [len(DATA), 7]
    connection.close()


def test_many_at_once(proxy: Proxy) -> None:
    proxy.delay(0.2)

    def read(i: int) -> tuple[int, bytes]:
        connection = connected(proxy)
        try:
            return get(connection, Range=f"bytes={i}-{i + 9}")
        finally:
            connection.close()

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(read, range(200)))
    assert answers == [(206, DATA[i : i + 10]) for i in range(200)]
    assert max(request.at_once for request in proxy.requests()) > 20


def test_faults_hit_the_requests_that_they_are_for(proxy: Proxy) -> None:
    with proxy.faulty(Fault("GET", "^a b$", skip=1, times=2, status=503, body="busy")):
        connection = connected(proxy)
        assert [get(connection)[0] for _ in range(4)] == [200, 503, 503, 200]
        assert get(connection)[1] == DATA
    assert [request.broken for request in proxy.requests()] == [False, True, True, False, False]
    connection.close()


def test_a_connection_that_is_reset(proxy: Proxy) -> None:
    for done in (False, True):
        with proxy.faulty(Fault(reset=True, done=done)):
            connection = connected(proxy)
            with pytest.raises(ConnectionResetError):
                get(connection)
            connection.close()
    assert [request.status for request in proxy.requests()] == [0, 0]


def test_an_answer_that_ends_early(proxy: Proxy) -> None:
    with proxy.faulty(Fault(cut=1000)):
        connection = connected(proxy)
        with pytest.raises(http.client.IncompleteRead) as caught:
            get(connection)
        assert caught.value.partial == DATA[:1000]
        connection.close()
    with proxy.faulty(Fault(cut=1000, reset=True)):
        connection = connected(proxy)
        connection.request("GET", "/a%20b")
        answer = connection.getresponse()
        assert int(answer.headers["Content-Length"]) == len(DATA)
        assert answer.read(1000) == DATA[:1000]
        with pytest.raises(ConnectionResetError):
            answer.read(1)
        connection.close()


def test_ranges_of_the_web_server(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(DATA)
    connection = http.client.HTTPConnection(urlsplit(servers.web(tmp_path).url).netloc, timeout=30)
    assert get(connection, Range="bytes=-5") == (206, DATA[-5:])
    assert get(connection, Range=f"bytes={len(DATA) - 3}-{len(DATA) + 9}") == (206, DATA[-3:])
    assert get(connection, Range=f"bytes={len(DATA)}-")[0] == 416
    connection.request("HEAD", "/a%20b")
    answer = connection.getresponse()
    answer.read()
    tag = answer.headers["ETag"]
    assert get(connection, **{"If-Match": tag, "Range": "bytes=0-0"}) == (206, DATA[:1])
    assert get(connection, **{"If-Match": '"other"'})[0] == 412
    assert get(connection, **{"If-Range": '"other"', "Range": "bytes=0-0"}) == (200, DATA)
    connection.close()
