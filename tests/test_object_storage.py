"""Object storage by URL: how it is found, what is asked of it, and what is told of failures."""

from __future__ import annotations

import datetime as dt
import logging
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr.storage

import imgstore_zarr
from imgstore_zarr import (
    Location,
    RecordingAccessError,
    RecordingNotFoundError,
    UnsupportedFormatError,
    locate,
)
from imgstore_zarr.storage import ObjectStore, ZarrStore
from imgstore_zarr.storage.index_pages import linked_names
from tests import servers
from tests.servers import Fault, Place
from tests.servers.fixtures import ThroughProxy

obstore = pytest.importorskip("obstore")

HASTE = {
    "max_retries": 1,
    "retry_timeout": dt.timedelta(seconds=5),
    "backoff": {
        "init_backoff": dt.timedelta(milliseconds=10),
        "max_backoff": dt.timedelta(milliseconds=10),
        "base": 2,
    },
}
SECRETS = (servers.SECRET, servers.AZURE_KEY, "A-token-that-nobody-may-see")
PLACES: dict[str, Callable[[], Place]] = {"s3": servers.s3, "azure": servers.azure}


@pytest.fixture(autouse=True)
def without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of the machine are no concern of the tests."""
    for name in os.environ:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    """A new bucket or container."""
    return PLACES[request.param]()


def write_recording(root: Path) -> Path:
    """A recording of ten frames, the values of which are their positions."""
    with imgstore_zarr.create(root, "raw/zarr", (8, 9), chunksize=4) as writer:
        for i in range(10):
            writer.add_image(np.full((8, 9), i, np.uint8), i, float(i))
    return root


# Where it is


def found(location: object, **options: Any) -> tuple[str, str]:
    """Kind of client and key of what is found."""
    place = locate(location, options)
    assert isinstance(place, ObjectStore)
    config = getattr(place.store, "config", {})
    bucket = config.get("bucket", config.get("container_name", getattr(place.store, "url", "")))
    return f"{type(place.store).__name__} {bucket}", place.prefix


AWS = {"key": "id", "secret": "s"}
AZURE = {"account_name": "lab", "account_key": "c2VjcmV0"}


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        ("s3://bucket/a/rec", AWS, ("S3Store bucket", "a/rec")),
        ("S3://bucket/a/rec/", AWS, ("S3Store bucket", "a/rec")),
        ("s3a://bucket/a/rec", AWS, ("S3Store bucket", "a/rec")),
        ("s3://bucket", AWS, ("S3Store bucket", "")),
        ("s3://bucket/a/rec/zarr.json", AWS, ("S3Store bucket", "a/rec")),
        ("s3://bucket/rec/metadata.yaml", AWS, ("S3Store bucket", "rec")),
        ("s3://bucket/zarr.json", AWS, ("S3Store bucket", "")),
        ("s3://bucket/my%20rec", AWS, ("S3Store bucket", "my rec")),
        ("s3://bucket/my rec", AWS, ("S3Store bucket", "my rec")),
        ("s3://bucket/rec#1", AWS, ("S3Store bucket", "rec#1")),
        ("s3://bucket/rec%3F%2523", AWS, ("S3Store bucket", "rec?%23")),
        ("s3://bucket/100%", AWS, ("S3Store bucket", "100%")),
        ("gs://bucket/rec", {"anon": True}, ("GCSStore bucket", "rec")),
        ("gcs://bucket/rec", {"token": "anon"}, ("GCSStore bucket", "rec")),
        ("az://box/a/rec", AZURE, ("AzureStore box", "a/rec")),
        ("abfs://box/rec", AZURE, ("AzureStore box", "rec")),
        (
            "abfss://box@lab.dfs.core.windows.net/a/rec",
            {"account_key": "c2VjcmV0"},
            ("AzureStore box", "a/rec"),
        ),
        ("https://host/a/rec", {}, ("HTTPStore https://host", "a/rec")),
        ("http://host:81/a/zarr.json", {}, ("HTTPStore http://host:81", "a")),
    ],
)
def test_urls(url: str, options: dict[str, Any], expected: tuple[str, str]) -> None:
    kind, key = found(url, **options)
    assert (kind.rstrip("/"), key) == expected


@pytest.mark.parametrize(
    ("url", "options", "reason"),
    [
        ("az://box/rec?sv=1&sig=A-token-that-nobody-may-see", AZURE, "storage_options"),
        ("https://host/rec?token=A-token-that-nobody-may-see", {}, "%3F"),
        ("https://me:A-token-that-nobody-may-see@host/a//rec", {}, "empty"),
        ("s3://bucket/a//rec", AWS, "empty"),
        ("s3://bucket/a/../rec", AWS, "'..'"),
        ("s3://bucket/a%00rec", AWS, "control"),
        ("s3://bucket/a\nrec", AWS, "control"),
        ("s3:///rec", AWS, "no bucket"),
        ("s3://", AWS, "no bucket"),
        ("s3://bucket/rec", {**AWS, "endpoint": "minio.example.org:9000"}, "endpoint"),
        ("s3://bucket/rec", {**AWS, "endpoint_url": "http://a b"}, "endpoint"),
    ],
)
def test_what_names_no_place_is_refused(url: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=reason) as caught:
        locate(url, options)
    assert "A-token" not in str(caught.value)


NAMES = ["a b", "a%20b", "100%", "rec#1", "rec?x=1", "ü"]


def test_names_with_signs_of_urls(s3: Place, tmp_path: Path) -> None:
    recording = write_recording(tmp_path / "rec")
    for name in NAMES:
        for file in recording.rglob("*.json"):
            obstore.put(s3.store, f"{name}/{file.relative_to(recording).as_posix()}", file)
    place = locate(s3.url, s3.options)
    assert isinstance(place, ObjectStore)
    assert sorted(place.folders()) == sorted(NAMES)
    for name in NAMES:
        again = locate(place.below(name).name, s3.options)
        assert isinstance(again, ObjectStore)
        assert again.prefix == name
        assert again.exists("zarr.json")


def test_files_by_urls_with_signs(tmp_path: Path) -> None:
    assert locate(f"file://{tmp_path}/rec#1%20a?b").path == tmp_path / "rec#1 a?b"


def test_options_by_the_names_of_others_open_it(s3: Place, tmp_path: Path) -> None:
    place = s3.below("a/rec")
    place.fill(write_recording(tmp_path / "rec"))
    key, secret, endpoint = (
        place.options[name] for name in ("access_key_id", "secret_access_key", "endpoint")
    )
    spellings: list[dict[str, Any]] = [
        {"access_key_id": key, "secret_access_key": secret, "endpoint": endpoint},
        {"aws_access_key_id": key, "aws_secret_access_key": secret, "aws_endpoint": endpoint},
        {"key": key, "secret": secret, "endpoint_url": endpoint},
        {"key": key, "secret": secret, "client_kwargs": {"endpoint_url": endpoint}},
        {
            "key": key,
            "secret": secret,
            "token": None,
            "use_ssl": False,
            "client_kwargs": {"endpoint_url": endpoint, "region_name": "us-east-1"},
        },
        {**place.options, "timeout": "10s", "client_options": {"connect_timeout": "1s"}},
    ]
    for options in spellings:
        with imgstore_zarr.open(place.url, storage_options=options) as store:
            assert store.frames[7, 0, 0] == 7, options


def test_what_is_public_needs_no_credentials(s3: Place, tmp_path: Path) -> None:
    place = s3.below("rec")
    place.fill(write_recording(tmp_path / "rec"))
    endpoint = place.options["endpoint"]
    with pytest.raises(RecordingAccessError, match="HTTP 403"):
        imgstore_zarr.open(place.url, storage_options={"anon": True, "endpoint": endpoint})
    place.publish()
    for options in (
        {"skip_signature": True, "endpoint": endpoint},
        {"anon": True, "endpoint_url": endpoint},
    ):
        with imgstore_zarr.open(place.url, storage_options=options) as store:
            assert store.frames[7, 0, 0] == 7


def test_what_is_not_given_comes_from_the_environment(
    s3: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = s3.below("rec")
    place.fill(write_recording(tmp_path / "rec"))
    for name, option in {
        "AWS_ACCESS_KEY_ID": "access_key_id",
        "AWS_SECRET_ACCESS_KEY": "secret_access_key",
        "AWS_ENDPOINT_URL": "endpoint",
        "AWS_REGION": "region",
    }.items():
        monkeypatch.setenv(name, place.options[option])
    with imgstore_zarr.open(place.url) as store:
        assert store.frames[7, 0, 0] == 7
    with imgstore_zarr.open(place.url, storage_options={"key": "another", "secret": "s"}) as store:
        assert store.frames[7, 0, 0] == 7


def test_azure_takes_keys_tokens_and_connection_strings(azure: Place, tmp_path: Path) -> None:
    place = azure.below("rec")
    place.fill(write_recording(tmp_path / "rec"))
    key, endpoint = place.options["account_key"], place.options["endpoint"]
    account = place.options["account_name"]
    token = servers.azure_token("rl")
    text = f"DefaultEndpointsProtocol=http;AccountName={account};BlobEndpoint={endpoint};"
    spellings: list[dict[str, Any]] = [
        {"account_name": account, "endpoint": endpoint, "account_key": key},
        {"account_name": account, "endpoint": endpoint, "credential": key},
        {"account_name": account, "endpoint": endpoint, "sas_key": token},
        {"account_name": account, "endpoint": endpoint, "sas_token": f"?{token}"},
        {"connection_string": f"{text}AccountKey={key};"},
        {"connection_string": f"{text}SharedAccessSignature={token}"},
    ]
    for options in spellings:
        with imgstore_zarr.open(place.url, storage_options=options) as store:
            assert store.frames[7, 0, 0] == 7, options


def test_stores_of_obstore_and_of_zarr_open_it(s3: Place, tmp_path: Path) -> None:
    place = s3.below("a/rec")
    place.fill(write_recording(tmp_path / "rec"))
    assert locate(place.store).name == place.url
    stores = [
        place.store,
        zarr.storage.ObjectStore(place.store),
        zarr.storage.ObjectStore(place.store, read_only=True),
        locate(place.store),
    ]
    for store in stores:
        assert isinstance(locate(store), ObjectStore)
        with imgstore_zarr.open(store) as opened:
            assert opened.frames[7, 0, 0] == 7
            assert opened.filename == place.url


def test_a_store_that_is_read_only_is_not_written_to(s3: Place) -> None:
    location = locate(zarr.storage.ObjectStore(s3.store, read_only=True))
    with pytest.raises(OSError, match="read only"):
        location.write("key", b"data")
    with pytest.raises(OSError, match="read only"):
        location.delete("key")
    assert s3.contents() == {}


def fsspec_options(place: Place) -> dict[str, Any]:
    return {
        "key": place.options["access_key_id"],
        "secret": place.options["secret_access_key"],
        "client_kwargs": {"endpoint_url": place.options["endpoint"], "region_name": "us-east-1"},
    }


def test_stores_of_fsspec_open_it(s3: Place, tmp_path: Path) -> None:
    pytest.importorskip("s3fs")
    place = s3.below("rec")
    place.fill(write_recording(tmp_path / "rec"))
    store = zarr.storage.FsspecStore.from_url(
        place.url, storage_options=fsspec_options(place), read_only=True
    )
    assert isinstance(locate(store), ZarrStore)
    with imgstore_zarr.open(store) as opened:
        assert opened.frames[7, 0, 0] == 7


def test_universal_paths_open_it(
    s3: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upath: Any = pytest.importorskip("upath")
    monkeypatch.setitem(sys.modules, "s3fs", None)  # is not needed
    place = s3.below("rec")
    place.fill(write_recording(tmp_path / "rec"))
    for url in (place.url, f"{place.url}/zarr.json"):
        path = upath.UPath(url, **fsspec_options(place))
        assert isinstance(locate(path), ObjectStore)
        with imgstore_zarr.open(path) as store:
            assert store.frames[7, 0, 0] == 7
    with imgstore_zarr.open(upath.UPath(tmp_path / "rec")) as store:
        assert store.frames[7, 0, 0] == 7


def test_memory_is_one_for_the_process() -> None:
    locate("memory://one/a").write("key", b"data")
    assert locate("memory://one").read("a/key") == b"data"
    assert not locate("memory://other").exists("a/key")
    assert pickle.loads(pickle.dumps(locate("memory://one/a"))).read("key") == b"data"


def test_memory_of_obstore_cannot_go_elsewhere() -> None:
    from obstore.store import MemoryStore

    with pytest.raises(TypeError, match="MemoryStore"):
        pickle.dumps(locate(MemoryStore()))


@pytest.mark.parametrize(
    ("url", "options", "name"),
    [
        ("s3://bucket/rec", {**AWS, "bukcet_region": "x"}, "bukcet_region"),
        ("az://box/rec", {**AZURE, "acount": "x"}, "acount"),
        ("gs://bucket/rec", {"anon": True, "projekt": "x"}, "projekt"),
        ("https://host/rec", {"key": "x"}, "key"),
        ("memory://host/rec", {"key": "x"}, "key"),
        ("s3://bucket/rec", {**AWS, "retry_config": {"tries": 3}}, "'tries' of retry_config"),
    ],
)
def test_an_unknown_option_is_named(url: str, options: dict[str, Any], name: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=name) as caught:
        imgstore_zarr.open(url, storage_options=options)
    assert url in str(caught.value)


def test_options_are_for_urls(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "rec")
    for location in (path, str(path), path.as_uri(), zarr.storage.MemoryStore()):
        with pytest.raises(UnsupportedFormatError, match="storage_options are for URLs"):
            imgstore_zarr.open(location, storage_options={"key": "x"})


# What is asked of the server


def test_a_range_is_one_request(place: Place, through_proxy: ThroughProxy) -> None:
    obstore.put(place.store, "shard", bytes(range(256)))
    seen, proxy = through_proxy(place)
    blob = locate(seen.url, seen.options).open("shard")
    assert proxy.requests() == []
    buffers = [np.zeros(n, np.uint8) for n in (3, 0, 4)]
    assert blob.read_into(10, buffers) == 7
    assert b"".join(part.tobytes() for part in buffers) == bytes(range(10, 17))
    (request,) = proxy.requests()
    assert (request.method, request.range, request.sent) == ("GET", "bytes=10-16", 7)


def test_an_end_is_one_request_where_the_service_can(
    s3: Place, through_proxy: ThroughProxy
) -> None:
    obstore.put(s3.store, "shard", bytes(range(256)))
    seen, proxy = through_proxy(s3)
    assert locate(seen.url, seen.options).open("shard").tail(4) == bytes(range(252, 256))
    assert [(r.method, r.range, r.sent) for r in proxy.requests()] == [("GET", "bytes=-4", 4)]


def test_azure_is_asked_for_the_size_once(azure: Place, through_proxy: ThroughProxy) -> None:
    """It has no requests for the end of an object."""
    obstore.put(azure.store, "shard", bytes(range(256)))
    seen, proxy = through_proxy(azure)
    blob = locate(seen.url, seen.options).open("shard")
    assert blob.tail(4) == bytes(range(252, 256))
    assert blob.tail(2) == bytes(range(254, 256))
    asked = [(request.method, request.range) for request in proxy.requests()]
    assert asked == [("HEAD", ""), ("GET", "bytes=252-255"), ("GET", "bytes=254-255")]


def test_what_is_past_the_end_is_not_asked_for_once_the_size_is_known(
    place: Place, through_proxy: ThroughProxy
) -> None:
    obstore.put(place.store, "shard", b"0123456789")
    seen, proxy = through_proxy(place)
    blob = locate(seen.url, seen.options).open("shard")
    blob.tail(4)
    proxy.forget()
    assert blob.read_into(10, [np.zeros(4, np.uint8)]) == 0
    assert proxy.requests() == []


def test_an_object_that_was_replaced_is_not_mixed_with_the_new_one(place: Place) -> None:
    location = locate(place.url, place.options)
    location.write("shard", b"0123456789")
    blob = location.open("shard")
    assert blob.tail(2) == b"89"
    location.write("shard", b"ABCDEFGHIJ")
    with pytest.raises(OSError, match="shard was replaced by another object"):
        blob.read_into(0, [np.zeros(4, np.uint8)])
    assert location.open("shard").tail(2) == b"IJ"


def test_more_names_than_one_answer_holds(s3: Place, through_proxy: ThroughProxy) -> None:
    for i in range(servers.PAGE + 30):
        obstore.put(s3.store, f"rec/image/{i:04}", b"")
    seen, proxy = through_proxy(s3)
    location = locate(f"{seen.url}/rec", seen.options)
    assert location.names("image") == [f"{i:04}" for i in range(servers.PAGE + 30)]
    assert len(proxy.requests()) == 2
    location.delete("image")
    assert s3.contents() == {}


def test_a_file_goes_up_in_parts(place: Place, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(20_000_000)
    (tmp_path / "shard").write_bytes(data)
    location = locate(place.url, place.options)
    assert isinstance(location, ObjectStore)
    location.upload("image/c/0", tmp_path / "shard")
    assert bytes(obstore.get(place.store, "image/c/0").buffer()) == data


def test_only_one_creates_an_object(place: Place, through_proxy: ThroughProxy) -> None:
    seen, proxy = through_proxy(place)
    location = locate(seen.url, {**seen.options, "retry_config": HASTE})
    assert isinstance(location, ObjectStore)
    location.create("lock", b"mine")
    with pytest.raises(FileExistsError, match="lock"):
        location.create("lock", b"yours")
    assert obstore.get(place.store, "lock").bytes() == b"mine"
    # The answer was lost: whoever wrote it, it is there.
    with (
        proxy.faulty(Fault("PUT", reset=True, done=True)),
        pytest.raises(FileExistsError, match="other"),
    ):
        location.create("other", b"mine")
    assert obstore.get(place.store, "other").bytes() == b"mine"


# Pages of web servers

PAGES = {
    "nginx": """<html><head><title>Index of /data/my rec/</title></head><body>
        <h1>Index of /data/my rec/</h1><hr><pre><a href="../">../</a>
        <a href="000000/">000000/</a>      26-Nov-2024 10:00       -
        <a href="a%20b%25.npz">a b%.npz</a>  26-Nov-2024 10:00     123
        </pre><hr></body></html>""",
    "Apache": """<table><tr><th><a href="?C=N;O=D">Name</a></th><th><a href="?C=M;O=A">Date</a></th>
        </tr><tr><td><a href="/data/">Parent Directory</a></td></tr>
        <tr><td><a href="000000/">000000/</a></td><td align="right">2024-11-26</td></tr>
        <tr><td><a href="a%20b%25.npz">a b%.npz</a></td></tr></table>""",
    "Caddy": """<!DOCTYPE html><html><nav><a href="/">/</a><a href="/data/">data</a></nav>
        <a href="./000000/"><span>000000</span></a><a href="./a%20b%25.npz">a b%.npz</a>
        <a href="https://caddyserver.com">Caddy</a></html>""",
    "absolute": """<a href="/data/my%20rec/000000/">x</a><a href="/data/my%20rec/a%20b%25.npz">y</a>
        <a href="/data/my%20rec/000000/deeper.npz">z</a><a href="#top">top</a>""",
}


@pytest.mark.parametrize("server", PAGES)
def test_pages_of_web_servers(server: str) -> None:
    names = linked_names(PAGES[server].encode(), "data/my rec")
    assert names == ["000000/", "a b%.npz"]


def test_a_page_of_the_root() -> None:
    assert linked_names(b'<a href="rec/">rec</a><a href="/other">o</a>', "") == ["other", "rec/"]


def test_an_empty_folder_and_no_folder() -> None:
    assert linked_names(b"<html><body><ul></ul></body></html>", "rec") == []
    with pytest.raises(OSError, match="no listing"):
        linked_names(b'{"error": "not found"}', "rec")


@pytest.mark.parametrize("listings", [True, False])
def test_zarr_needs_no_listing(tmp_path: Path, listings: bool) -> None:
    write_recording(tmp_path / "my rec")
    place = servers.web(tmp_path, listings=listings).below("my rec")
    for url in (place.url, place.url.replace(" ", "%20")):
        with imgstore_zarr.open(url) as store:
            assert store.frames[:, 0, 0].tolist() == list(range(10))


def test_a_folder_that_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "rec").mkdir()
    location = locate(servers.web(tmp_path, listings=False).below("rec").url)
    for look in (location.names, lambda: location.exists("")):
        with pytest.raises(RecordingAccessError, match=r"listing it was refused.*turn listings on"):
            look()


def test_a_server_without_ranges(tmp_path: Path) -> None:
    write_recording(tmp_path / "rec")
    place = servers.web(tmp_path, ranges=False).below("rec")
    with (
        imgstore_zarr.open(place.url) as store,
        pytest.raises(RecordingAccessError, match=r"parts of a file.*HTTP Range requests"),
    ):
        store.get_image(frame_index=3)


# Bad input


def xml(code: str, message: str = "") -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"


def is_silent(error: BaseException | None, captured: str, place: Place) -> None:
    """No secret in anything that people send around."""
    text = captured + repr(place.url)
    if error is not None:
        text += str(error) + repr(error) + "".join(traceback.format_exception(error))
    if "://" in place.url:
        try:
            found = locate(place.url, place.options)
        except imgstore_zarr.ImgStoreError:
            pass
        else:
            text += repr(found) + str(found) + found.name
    assert [secret for secret in SECRETS if secret in text] == []


@dataclass(frozen=True)
class Bad:
    """What is wrong, and what is to be told."""

    says: str
    fault: Fault | None = None
    change: Callable[[Place], Place] = lambda place: place
    error: type[Exception] = RecordingAccessError
    on: tuple[str, ...] = ("s3", "azure")
    requests: int = 2


def always(**fault: Any) -> Fault:
    return Fault(times=None, **fault)


CREDENTIALS = r"set credentials in storage_options.*access_key_id.*account_key"
AGAIN = "check the endpoint and the network, and try again"
EVERYWHERE = ("s3", "azure", "web")
BAD = {
    "no recording": Bad(
        "is no recording: looked for metadata.yaml and zarr.json",
        change=lambda place: place.below("elsewhere"),
        error=RecordingNotFoundError,
        on=EVERYWHERE,
    ),
    "no bucket": Bad(
        "there is no such bucket.*check its name",
        change=lambda place: replace(place, url="s3://nobodys/rec"),
        on=("s3",),
    ),
    "no container": Bad(
        "there is no such container.*check its name",
        change=lambda place: replace(place, url="az://nobodys/rec"),
        on=("azure",),
    ),
    "half of the credentials": Bad(
        "there are no credentials, or not all; set access_key_id and secret_access_key",
        change=lambda place: place.given(secret_access_key=None),
        on=("s3",),
        requests=0,
    ),
    "a wrong key": Bad(
        f"was refused.*HTTP 403.*{CREDENTIALS}",
        change=lambda place: place.given(account_key="QS10b2tlbi10aGF0LW5vYm9keS1tYXktc2Vl"),
        on=("azure",),
    ),
    "a token without permission": Bad(
        f"was refused.*HTTP 403.*{CREDENTIALS}",
        change=lambda place: place.given(
            account_key=None, sas_token="sv=2020-02-10&sp=r&sig=A-token-that-nobody-may-see"
        ),
        on=("azure",),
    ),
    "a token that is none": Bad(
        "the storage_options .*account_key.* are not understood",
        change=lambda place: place.given(account_key="A-token-that-nobody-may-see"),
        error=UnsupportedFormatError,
        on=("azure",),
        requests=0,
    ),
    "forbidden": Bad(
        f"was refused.*HTTP 403: AccessDenied.*{CREDENTIALS}",
        always(status=403, body=xml("AccessDenied")),
        on=EVERYWHERE,
    ),
    "forbidden by who says nothing": Bad(
        f"was refused.*HTTP 403: access denied.*{CREDENTIALS}", always(status=403), on=EVERYWHERE
    ),
    "not authenticated": Bad(
        f"was refused.*HTTP 401.*{CREDENTIALS}.*user:password@", always(status=401), on=EVERYWHERE
    ),
    "an expired token": Bad(
        "was refused.*the token has expired.*get a new token",
        always(status=400, body=xml("ExpiredToken", "The provided token has expired.")),
    ),
    "a link that has expired": Bad(
        "was refused.*the token has expired.*get a new token",
        always(status=403, body=xml("AccessDenied", "Request has expired")),
    ),
    "a wrong region": Bad(
        "the bucket is elsewhere.*check the region", always(status=301), on=("s3",)
    ),
    "a region that does not fit": Bad(
        "the bucket is elsewhere.*check the region",
        always(status=400, body=xml("AuthorizationHeaderMalformed")),
        on=("s3",),
    ),
    "a broken service": Bad(f"HTTP 500 .*{AGAIN}", always(status=500), on=EVERYWHERE),
    "an overloaded service": Bad(
        f"HTTP 503 .*{AGAIN}", always(status=503, body=xml("SlowDown")), on=EVERYWHERE
    ),
    "too many requests": Bad(f"HTTP 429 .*{AGAIN}", always(status=429), on=EVERYWHERE),
    "no such method": Bad("HTTP 405 .*check the address", always(status=405)),
    "connections that are reset": Bad(
        f"the endpoint does not answer.*{AGAIN}", always(reset=True), on=EVERYWHERE
    ),
    "a server that is too slow": Bad(
        "the endpoint is too slow",
        always(delay=3.0),
        change=lambda place: place.given(timeout="200ms"),
        on=EVERYWHERE,
    ),
    "a body that is short": Bad(
        f"the answer for 'zarr.json' broke off.*{AGAIN}",
        always(cut=5),
        on=EVERYWHERE,
        requests=8,  # twice by obstore, each time that it is asked
    ),
    "a body that is reset": Bad(
        f"the answer for 'zarr.json' broke off.*{AGAIN}",
        always(cut=5, reset=True),
        on=("s3",),
        requests=8,
    ),
}
CASES = [pytest.param(kind, name, id=f"{kind}: {name}") for name in BAD for kind in BAD[name].on]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_bad_input(
    kind: str,
    name: str,
    tmp_path: Path,
    through_proxy: ThroughProxy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    bad = BAD[name]
    # A name that tells of what has not happened.
    place = (servers.web(tmp_path) if kind == "web" else PLACES[kind]()).below("expired connection")
    if kind == "web":
        write_recording(tmp_path / "expired connection")
    else:
        place.fill(write_recording(tmp_path / "rec"))
    seen, proxy = through_proxy(place)
    given = bad.change(seen.given(retry_config=HASTE))
    with (
        proxy.faulty(*[bad.fault] if bad.fault else []),
        pytest.raises(bad.error, match=f"(?s){bad.says}") as caught,
    ):
        imgstore_zarr.open(given.url, storage_options=given.options)
    assert isinstance(caught.value, imgstore_zarr.ImgStoreError)
    assert given.url in str(caught.value)
    # Every layout looks for its file, but waits for nothing twice.
    assert len(proxy.requests()) <= bad.requests
    is_silent(caught.value, caplog.text, given)


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_an_endpoint_where_nothing_listens(kind: str) -> None:
    place = PLACES[kind]().at(servers.nowhere()).given(retry_config=HASTE)
    with pytest.raises(RecordingAccessError, match=f"does not answer.*{AGAIN}") as caught:
        imgstore_zarr.open(place.url, storage_options=place.options)
    is_silent(caught.value, "", place)


def test_no_credentials_at_all(s3: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the machine is one of Amazon's, where it tells its own."""
    monkeypatch.setattr("imgstore_zarr.storage.urls._METADATA_SERVICE", ("127.0.0.1", port()))
    place = s3.given(access_key_id=None, secret_access_key=None)
    with pytest.raises(RecordingAccessError, match=r"no credentials.*AWS_SECRET_ACCESS_KEY"):
        imgstore_zarr.open(place.url, storage_options=place.options)


def port() -> int:
    return int(servers.nowhere().rpartition(":")[2])


@pytest.mark.parametrize("key", ["image/c", "frame_time"])
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (always(status=403, body=xml("AccessDenied")), f"was refused.*{CREDENTIALS}"),
        (always(status=400, body=xml("ExpiredToken")), "the token has expired.*get a new token"),
        (always(status=500), f"HTTP 500.*{AGAIN}"),
        (always(reset=True), f"does not answer.*{AGAIN}"),
        (always(cut=5), f"broke off.*{AGAIN}"),
    ],
    ids=["forbidden", "expired", "broken", "reset", "short"],
)
def test_failing_later_is_no_damage(
    s3: Place, tmp_path: Path, through_proxy: ThroughProxy, fault: Fault, says: str, key: str
) -> None:
    """Nobody is sent to fetch a backup because the network is down."""
    place = s3.below("rec")
    place.fill(write_recording(tmp_path / "rec"))
    seen, proxy = through_proxy(place)
    given = seen.given(retry_config=HASTE)
    with (
        proxy.faulty(replace(fault, key=key)),
        pytest.raises(RecordingAccessError, match=f"(?s){says}") as caught,
        imgstore_zarr.open(given.url, storage_options=given.options) as store,
    ):
        store.get_image(frame_index=7)
    assert given.url in str(caught.value)
    assert key in str(caught.value)
    assert "backup" not in str(caught.value)
    is_silent(caught.value, "", given)


LISTING = "^bucket-[^/]*$"


@pytest.mark.parametrize("status", [403, 500])
@pytest.mark.parametrize(
    ("format", "key"),
    [
        ("png/dir", "metadata.yaml"),
        ("png/dir", LISTING),
        ("png/dir", "index.npz"),
        ("png/dir", "png$"),
        ("mjpeg/avi", LISTING),
        ("mjpeg/avi", "npz$"),
        ("mjpeg/avi", "avi$"),
    ],
)
def test_other_layouts_fail_as_clearly(
    s3: Place, tmp_path: Path, through_proxy: ThroughProxy, format: str, key: str, status: int
) -> None:
    with imgstore_zarr.create(tmp_path / "rec", format, (16, 16), chunksize=4) as writer:
        for i in range(6):
            writer.add_image(np.full((16, 16), 40 * i, np.uint8), i, float(i))
    place = s3.below("rec")
    place.fill(tmp_path / "rec")
    seen, proxy = through_proxy(place)
    given = seen.given(retry_config=HASTE)
    with (
        proxy.faulty(always(status=status, key=key)),
        pytest.raises(RecordingAccessError, match=f"HTTP {status}") as caught,
        imgstore_zarr.open(given.url, storage_options=given.options) as store,
    ):
        _ = store.frames[...]
    assert given.url in str(caught.value)
    assert "backup" not in str(caught.value)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=503, body=xml("SlowDown")),
        Fault(reset=True),
        Fault(cut=5),
        Fault(cut=5, reset=True),
        Fault(delay=0.3),
    ],
    ids=["500", "503", "reset", "short", "reset in the body", "slow"],
)
@pytest.mark.parametrize("key", ["zarr.json", "frame_number", "image/c"])
def test_what_goes_wrong_once_is_not_noticed(
    place: Place, tmp_path: Path, through_proxy: ThroughProxy, fault: Fault, key: str
) -> None:
    rec = place.below("rec")
    rec.fill(write_recording(tmp_path / "rec"))
    seen, proxy = through_proxy(rec)
    given = seen.given(retry_config=HASTE)
    with (
        proxy.faulty(replace(fault, key=key)),
        imgstore_zarr.open(given.url, storage_options=given.options) as store,
    ):
        assert store.frames[:, 0, 0].tolist() == list(range(10))
    assert [request.broken for request in proxy.requests(key=key)].count(True) == 1


def test_secrets_go_where_they_are_needed_and_nowhere_else(s3: Place, tmp_path: Path) -> None:
    pytest.importorskip("dask.array")
    cloudpickle = pytest.importorskip("cloudpickle")
    place = s3.below("rec")
    place.fill(write_recording(tmp_path / "rec"))
    client = len(pickle.dumps(place.store))
    location: Location = locate(place.url, place.options)
    assert len(pickle.dumps(location)) < client + 600
    with imgstore_zarr.open(place.url, storage_options=place.options) as store:
        blocks = store.to_xarray(chunks="auto").data
        for text in (repr(store), store._repr_html_(), repr(blocks), str(store.report())):
            assert servers.SECRET not in text
        graph = cloudpickle.dumps(dict(blocks.__dask_graph__()))
        assert graph.count(servers.SECRET.encode()) == 1
        assert not any(servers.SECRET in str(key) for key in blocks.__dask_graph__())


def test_passwords_of_web_servers_are_sent_and_not_shown(tmp_path: Path) -> None:
    write_recording(tmp_path / "rec")
    place = servers.web(tmp_path).below("rec")
    url = place.url.replace("//", "//me:A-token-that-nobody-may-see@", 1)
    with imgstore_zarr.open(url) as store:
        text = repr(store) + store.filename + store.full_path
        assert "A-token" not in text
    assert "A-token" not in repr(locate(url)) + locate(url).name
    missing = f"{url}/nothing"
    with pytest.raises(RecordingNotFoundError) as caught:
        imgstore_zarr.open(missing)
    assert "A-token" not in "".join(traceback.format_exception(caught.value))


def test_without_obstore_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(imgstore_zarr.MissingDependencyError, match=r"pip install .*\[cloud\]"):
        imgstore_zarr.open("s3://bucket/rec", storage_options=AWS)
