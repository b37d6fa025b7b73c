"""What reading from object storage costs: every request to a real S3 server, counted by a proxy."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr import ImgStore, RecordingAccessError, UnsupportedFormatError
from imgstore_zarr.native.metadata import COLUMN_CHUNK
from imgstore_zarr.storage.requests import CONCURRENT
from tests import servers
from tests.servers import Fault, Place, Proxy

SHAPE = (24, 32)
CHUNKSIZE, COUNT = 100, 1000
IMAGES = np.random.default_rng(7).integers(0, 256, (COUNT, *SHAPE), np.uint8)


@dataclass
class Far:
    """A recording in a bucket, behind the proxy."""

    place: Place
    proxy: Proxy

    def open(self) -> ImgStore:
        return imgstore_zarr.open(self.place.url, storage_options=self.place.options)

    def take(self, *, method: str = "", key: str = "") -> list[tuple[str, str, str]]:
        """The requests since the last time: method, the end of the key, range."""
        found = self.proxy.requests(method, key)
        self.proxy._tell("forget")
        head = f"{self.place.url.removeprefix('s3://')}/"
        return [(one.method, one.key.removeprefix(head), one.range) for one in found]


@pytest.fixture(scope="module", params=["raw/zarr", "zstd/zarr"])
def bucket(request: pytest.FixtureRequest) -> Place:
    place = servers.s3()
    with imgstore_zarr.create(
        f"{place.url}/recording",
        request.param,
        SHAPE,
        chunksize=CHUNKSIZE,
        storage_options=place.options,
    ) as writer:
        for i, image in enumerate(IMAGES):
            writer.add_image(image, i, i / 25)
    return place.below("recording")


@pytest.fixture
def far(bucket: Place) -> Iterator[Far]:
    proxy = servers.proxy_of(bucket.server)
    proxy.forget()
    yield Far(bucket.at(proxy.url), proxy)
    proxy.forget()


def test_opening(far: Far) -> None:
    store = far.open()
    assert sorted(far.take()) == [
        ("GET", "frame_number/c/0", ""),
        ("GET", "frame_time/c/0", ""),
        ("GET", "zarr.json", ""),
    ]
    assert store.frame_count == COUNT
    assert store.get_frame_metadata()["frame_number"] == [*range(COUNT)]
    assert far.take() == []


def test_coordinates_of_several_chunks_are_read_at_once() -> None:
    place = servers.s3()
    count = COLUMN_CHUNK + 5
    with imgstore_zarr.create(
        place.url, "raw/zarr", (1, 1), chunksize=100_000, storage_options=place.options
    ) as writer:
        for i in range(count):
            writer.add_image(np.zeros((1, 1), np.uint8), 2 * i, i / 25)
    proxy = servers.proxy_of(place.server)
    proxy.forget()
    proxy.delay(0.05)
    there = place.at(proxy.url)
    store = imgstore_zarr.open(there.url, storage_options=there.options)
    requests = proxy.requests()
    proxy.forget()
    assert len(requests) == 1 + 2 * 2
    assert max(request.at_once for request in requests) == 4
    np.testing.assert_array_equal(store.index.frame_number, np.arange(count) * 2)


def test_one_frame(far: Far) -> None:
    store = far.open()
    far.take()
    np.testing.assert_array_equal(store.frames[123], IMAGES[123])
    cold = far.take()
    assert [(method, key) for method, key, _ in cold] == [("GET", "image/c/1/0/0")] * 2
    assert cold[0][2].startswith("bytes=-")
    np.testing.assert_array_equal(store.frames[150], IMAGES[150])
    assert len(far.take()) == 1
    np.testing.assert_array_equal(store.frames[123], IMAGES[123])
    assert len(far.take()) == 1


def test_a_frame_takes_the_bytes_of_a_frame(far: Far) -> None:
    store = far.open()
    store.frames[0]
    far.take()
    store.frames[7]
    (request,) = far.proxy.requests()
    encoded = int(np.prod(SHAPE)) + 4
    assert request.sent <= encoded + 16 * 2
    assert request.status == 206


def test_a_run_of_neighbours(far: Far) -> None:
    store = far.open()
    store.frames[200]
    far.take()
    np.testing.assert_array_equal(store.frames[210:274], IMAGES[210:274])
    assert len(far.take()) == 1
    np.testing.assert_array_equal(store.frames[290:310], IMAGES[290:310])
    assert sorted(key for _, key, _ in far.take()) == ["image/c/2/0/0"] + ["image/c/3/0/0"] * 2


def test_random_frames(far: Far) -> None:
    store = far.open()
    store.frames[[*range(0, COUNT, CHUNKSIZE)]]
    far.take()
    far.proxy.delay(0.05)
    # None beside another, which would come with it.
    positions = np.random.default_rng(1).permutation(np.arange(0, COUNT, 2))[:100]
    np.testing.assert_array_equal(store.frames[positions], IMAGES[positions])
    requests = far.proxy.requests()
    assert len(requests) == 100
    assert max(request.at_once for request in requests) == CONCURRENT


def interrupted(script: str) -> list[str]:
    """Run a script in a process of its own, which can press its own Ctrl-C; return what it prints."""
    head = """
import signal, threading
from imgstore_zarr.storage.requests import CONCURRENT, asked, each
# Who starts the tests in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
answered = threading.Event()
def press_ctrl_c():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
"""
    done = subprocess.run(
        [sys.executable, "-c", head + script],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_after_ctrl_c_nothing_more_is_begun() -> None:
    said = interrupted("""
begun = []
def request(number):
    begun.append(number)
    if number == 0:
        press_ctrl_c()
    answered.wait(60)
try:
    each(request, range(10 * CONCURRENT))
except KeyboardInterrupt:
    print("interrupted")
answered.set()
each(lambda _: None, range(CONCURRENT))  # behind whatever was left
print(len(begun))
""")
    assert said[0] == "interrupted"
    assert 1 <= int(said[1]) <= CONCURRENT


def test_ctrl_c_does_not_wait_for_an_answer() -> None:
    said = interrupted("""
def request():
    press_ctrl_c()
    return answered.wait(60)
try:
    asked(request, "key")
except KeyboardInterrupt:
    print("interrupted", answered.is_set())
answered.set()
""")
    assert said == ["interrupted", "False"]


def test_indexes_of_shards_are_read_at_once(far: Far) -> None:
    store = far.open()
    far.take()
    far.proxy.delay(0.05)
    positions = [*range(5, COUNT, CHUNKSIZE)]
    np.testing.assert_array_equal(store.frames[positions], IMAGES[positions])
    requests = far.proxy.requests()
    assert len(requests) == 20
    assert max(request.at_once for request in requests) == 10


def test_a_minute_by_xarray(far: Far) -> None:
    """1,000 frames are 40 seconds; 10 seconds lie in three or four shards."""
    import xarray as xr

    data = xr.open_dataset(
        far.place.url,
        engine="imgstore",
        index="frame_time",
        storage_options=far.place.options,
        chunks={},
    )["image"]
    assert len(far.take()) == 3
    part = data.sel(frame_time=slice(10.0, 19.99))
    assert far.take() == []
    np.testing.assert_array_equal(part.values, IMAGES[250:500])
    keys = [key for _, key, _ in far.take()]
    # Per shard its index and one range; the first lies half in the selection.
    assert sorted(keys) == sorted(f"image/c/{chunk}/0/0" for chunk in (2, 3, 4) for _ in range(2))


def test_reading_in_order_requests_ahead(far: Far) -> None:
    store = far.open()
    far.take()
    far.proxy.delay(0.01)
    for position, (image, (number, _)) in enumerate(store):
        assert number == position
        np.testing.assert_array_equal(image, IMAGES[position])
    requests = far.proxy.requests()
    # Each shard: its index, and one range. The first four frames come one by one.
    assert len(requests) <= 2 * COUNT // CHUNKSIZE + 4
    assert max(request.at_once for request in requests) > 4
    # Every byte once, but for what was read before it was seen that the frames are read in order.
    sent = sum(request.sent for request in requests)
    whole = sum(len(data) for key, (_, data) in far.place.contents().items() if "image/c" in key)
    assert sent <= whole + 3 * (int(np.prod(SHAPE)) + 40)


def test_who_jumps_is_not_read_ahead_for(far: Far) -> None:
    store = far.open()
    store.frames[0]
    far.take()
    for position in (10, 11, 40, 41, 12, 13):
        np.testing.assert_array_equal(store.frames[position], IMAGES[position])
    assert len(far.take()) == 6


def test_extra_data_and_the_report(far: Far) -> None:
    store = far.open()
    far.take()
    assert store.get_extra_data() is None
    assert len(far.take()) <= 4
    assert store.report().problems == ()
    # Of every shard no more than its index.
    assert len(far.take(key="image/c")) <= 10


def test_a_pickled_source_reads_at_once(far: Far) -> None:
    source: Any = far.open().frames.source
    far.take()
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.read(np.array([3])), IMAGES[[3]])
    assert len(far.take()) == 2


def test_a_shard_that_is_replaced_is_read_anew() -> None:
    """A flush replaces the open shard: what follows must not be read by the old index."""
    place = servers.s3()
    with imgstore_zarr.create(
        place.url, "zstd/zarr", SHAPE, chunksize=CHUNKSIZE, storage_options=place.options
    ) as writer:
        for i in range(10):
            writer.add_image(IMAGES[i], i, i / 25)
        writer.flush()
        store = imgstore_zarr.open(place.url, storage_options=place.options)
        np.testing.assert_array_equal(store.frames[3], IMAGES[3])
        for i in range(10, 20):
            writer.add_image(IMAGES[i], i, i / 25)
        writer.flush()
        np.testing.assert_array_equal(store.frames[4], IMAGES[4])
        np.testing.assert_array_equal(store.frames[0:10], IMAGES[:10])


def test_a_cache_is_there_for_who_wants_one(far: Far) -> None:
    place = far.place.given(cache_bytes=3 * int(np.prod(SHAPE)) + 100)
    with Far(place, far.proxy).open() as store:
        far.take()
        for position in (5, 7, 7, 5):
            np.testing.assert_array_equal(store.frames[position], IMAGES[position])
        # The index of the shard, and each frame once.
        assert len(far.take()) == 3
        for position in (10, 12, 14, 5):
            np.testing.assert_array_equal(store.frames[position], IMAGES[position])
        assert len(far.take()) == 4
    with pytest.raises(UnsupportedFormatError, match="cache_bytes"):
        imgstore_zarr.open(place.url, storage_options={**place.options, "cache_bytes": "much"})


FAULTS: dict[str, dict[str, Any]] = {
    "500": {"status": 500, "body": "<Error><Code>InternalError</Code></Error>"},
    "503": {"status": 503, "body": "<Error><Code>SlowDown</Code></Error>"},
    "reset": {"reset": True},
    "reset in the body": {"reset": True, "cut": 10},
    "truncated": {"cut": 10},
}


def session(far: Far) -> list[NDArray[Any]]:
    """Open, and read a frame, a run, some anywhere, and in order."""
    store = imgstore_zarr.open(far.place.url, storage_options=far.place.options)
    found = [store.frames[3], store.frames[90:110], store.frames[[500, 20, 501, 777]]]
    return [*found, *(store.frames[position] for position in range(400, 412))]


def assert_whole(found: list[NDArray[Any]]) -> None:
    for got, expected in zip(found, EXPECTED, strict=True):
        np.testing.assert_array_equal(got, expected)


EXPECTED = [IMAGES[3], IMAGES[90:110], IMAGES[[500, 20, 501, 777]], *IMAGES[400:412]]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_each_request_of_a_session(far: Far, fault: str) -> None:
    session(far)
    count = len(far.take())
    assert count > 15
    for skip in range(count):
        with far.proxy.faulty(Fault(skip=skip, **FAULTS[fault])):
            assert_whole(session(far))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_is_told(far: Far, fault: str) -> None:
    """From some request on nothing comes any more: an error says so, and nothing wrong is read."""
    few = far.place.given(retry_config={"max_retries": 1})
    patient = Far(few, far.proxy)
    session(patient)
    count = len(far.take())
    told = []
    for skip in range(0, count, 5):
        with far.proxy.faulty(Fault(skip=skip, times=None, **FAULTS[fault])):
            try:
                found = session(patient)
            except RecordingAccessError as error:
                told.append((skip, str(error)))
            else:
                assert_whole(found)
    # The last requests are for frames that the session does not come to.
    assert [skip for skip, _ in told[:3]] == [0, 5, 10]
    for _, text in told:
        assert text.startswith(f"{far.place.url}: ")
        assert text.endswith("again")
        assert servers.SECRET not in text
    assert_whole(session(patient))
