"""Real servers on this machine: S3, Azure, web servers, and a proxy that breaks what they answer.

Each is started when it is first asked for, and ends with this process. What is not installed skips the
test.
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
import hashlib
import hmac
import itertools
import json
import os
import shutil
import socket
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest

from tests.servers.processes import Server, module
from tests.servers.proxy import Fault, Request

__all__ = ["AZURE_KEY", "Fault", "Place", "Proxy", "Request", "azure", "azure_token", "s3", "web"]

SECRET = "wJalrXUtnFEMIsecretK7MDENGbPxRfiCYkey"
"""Of the S3 server; what holds it has told a secret."""

PAGE = 100
"""Names in one answer of the S3 server at most."""

# Azurite's own, which is in its documentation.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

_count = itertools.count()


@dataclass(frozen=True)
class Place:
    """A bucket, a container or a folder of its own on a server.

    Attributes
    ----------
    url
        What `imgstore_zarr.open` takes, with `options` as ``storage_options``.
    options
        Credentials and endpoint.
    root
        Of a web server: the folder that it shows.
    """

    url: str
    options: Mapping[str, Any]
    root: Path | None = None

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def store(self) -> Any:
        """A client of obstore's, made without this project: for bytes as they are."""
        from obstore.store import AzureStore, HTTPStore, S3Store

        client: Any = {"allow_http": True}
        if self.scheme == "http":
            return HTTPStore.from_url(self.url, client_options=client)
        parts = urlsplit(self.url)
        make: Any = {"s3": S3Store, "az": AzureStore}[self.scheme]
        prefix = parts.path.strip("/") or None
        return make(parts.netloc, prefix=prefix, client_options=client, **self.options)

    def below(self, name: str) -> Place:
        """Return what lies in a folder of it."""
        root = self.root and self.root / name
        return replace(self, url=f"{self.url}/{name}", root=root)

    def given(self, **options: Any) -> Place:
        """Return the same with other options; one that is None is left out."""
        merged = {**self.options, **options}
        return replace(self, options={k: v for k, v in merged.items() if v is not None})

    def at(self, server: str) -> Place:
        """Return the same by another address of the server, such as a proxy's."""
        if self.scheme == "http":
            return replace(self, url=f"{server}{urlsplit(self.url).path}")
        return self.given(endpoint=f"{server}{urlsplit(self.options['endpoint']).path}")

    @property
    def server(self) -> str:
        """The address of the server."""
        parts = urlsplit(self.url if self.scheme == "http" else self.options["endpoint"])
        return f"{parts.scheme}://{parts.netloc}"

    def contents(self) -> dict[str, tuple[str, bytes]]:
        """Return bytes of every object and what changes when it is written, by its key."""
        import obstore

        if self.root is not None:
            files = [path for path in self.root.rglob("*") if path.is_file()]
            return {str(path): (str(path.stat().st_mtime_ns), path.read_bytes()) for path in files}
        entries = [entry for batch in obstore.list(self.store) for entry in batch]
        tags = {str(entry["path"]): str(entry["e_tag"]) for entry in entries}
        return {
            key: (tag, bytes(obstore.get(self.store, key).buffer())) for key, tag in tags.items()
        }

    def publish(self) -> None:
        """Let everybody read what is in a bucket."""
        prefix = urlsplit(self.url).path.strip("/")
        for key in self.contents():
            path = quote(f"{urlsplit(self.url).netloc}/{prefix}/{key}")
            _put(
                f"{self.server}/{path}?acl", {"x-amz-acl": "public-read", "Authorization": "AWS me"}
            )

    def fill(self, root: Path) -> None:
        """Upload the files of a folder."""
        import obstore

        for file in root.rglob("*"):
            if file.is_file():
                obstore.put(self.store, file.relative_to(root).as_posix(), file)


class Proxy(Server):
    """A server before another one, that tests can look into; see `Fault` for what it does."""

    def __init__(self, server: str) -> None:
        super().__init__(module("proxy", server))

    def _tell(self, *words: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def requests(self, method: str = "", key: str = "", range: str = "") -> list[Request]:
        """Return the requests that came; regular expressions say which."""
        kind = Fault(method, key, range)
        return [found for entry in self._tell("log") if kind.matches(found := Request(**entry))]

    def forget(self) -> None:
        """Count from nothing again, without faults and latency."""
        self._tell("faults", [])
        self._tell("latency", 0.0)
        self._tell("forget")

    def delay(self, seconds: float) -> None:
        """Wait before each answer from now on."""
        self._tell("latency", seconds)

    @contextmanager
    def faulty(self, *faults: Fault) -> Iterator[None]:
        """Break requests within a block; of several faults that match the first happens."""
        self._tell("faults", [asdict(fault) for fault in faults])
        try:
            yield
        finally:
            self._tell("faults", [])


def needs(*names: str) -> None:
    """Skip the test where a package is not installed."""
    for name in names:
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


@functools.cache
def _moto() -> Server:
    return Server(module("moto", str(PAGE)))


@functools.cache
def _azurite(command: str) -> Server:
    words = [command, "--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck"]
    return Server([*words, "--disableTelemetry"], r"successfully listens on http://.*:(\d+)$")


@functools.cache
def proxy_of(server: str) -> Proxy:
    """Return the proxy before a server."""
    return Proxy(server)


def s3() -> Place:
    """Return a new bucket."""
    needs("obstore", "moto", "flask", "flask_cors")
    server = _moto()
    bucket = f"bucket-{os.getpid()}-{next(_count)}"
    _put(f"{server.url}/{bucket}")
    keys = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": SECRET, "region": "us-east-1"}
    return Place(f"s3://{bucket}", {"endpoint": server.url, **keys})


def azure() -> Place:
    """Return a new container."""
    needs("obstore")
    command = os.environ.get("AZURITE_BLOB") or shutil.which("azurite-blob")
    if command is None:
        pytest.skip("azurite-blob is not installed (npm install azurite), and AZURITE_BLOB not set")
    endpoint = f"{_azurite(command).url}/{AZURE_ACCOUNT}"
    container = f"container-{os.getpid()}-{next(_count)}"
    _put(f"{endpoint}/{container}?restype=container&{azure_token()}")
    options = {"account_name": AZURE_ACCOUNT, "account_key": AZURE_KEY, "endpoint": endpoint}
    return Place(f"az://{container}", options)


def web(root: Path, *, listings: bool = True, ranges: bool = True) -> Place:
    """Return a folder as a web server shows it."""
    needs("obstore")
    return Place(_web(root, listings=listings, ranges=ranges).url, {}, root)


@functools.cache
def _web(root: Path, *, listings: bool, ranges: bool) -> Server:
    if ranges:
        return Server(module("files", str(root), "listings" if listings else "no listings"))
    words = ["-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(root), "0"]
    return Server([sys.executable, *words], r"port (\d+)")


def nowhere() -> str:
    """Return an address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def azure_token(permissions: str = "rwdlacx") -> str:
    """Return a shared access signature of the whole account, for an hour."""
    end = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    fields = {
        "sp": permissions,
        "ss": "b",
        "srt": "sco",
        "st": "",
        "se": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "sip": "",
        "spr": "https,http",
        "sv": "2020-02-10",
    }
    text = "\n".join([AZURE_ACCOUNT, *fields.values(), ""]).encode()
    digest = hmac.digest(base64.b64decode(AZURE_KEY), text, hashlib.sha256)
    signed = {**fields, "sig": base64.b64encode(digest).decode()}
    return urlencode({name: value for name, value in signed.items() if value})


def _put(url: str, headers: Mapping[str, str] | None = None) -> None:
    request = urllib.request.Request(url, b"", dict(headers or {}), method="PUT")
    with urllib.request.urlopen(request, timeout=60):
        pass
