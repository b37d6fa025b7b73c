"""Recordings of Motif and imgstore that are read by requests: video chunks and directories of images."""

from __future__ import annotations

import datetime as dt
import pickle
import random
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

import imgstore_zarr
from imgstore_zarr import (
    ChunkMissingError,
    CorruptChunkError,
    ImgStore,
    RecordingAccessError,
    UnsupportedFormatError,
)
from imgstore_zarr.storage import Directory, ObjectStore, RequestError
from tests import servers
from tests.far import Far, far
from tests.servers import Fault, Place
from tests.servers.fixtures import ThroughProxy
from tests.videos import scene

CHUNKS, CHUNKSIZE, SHAPE = 6, 20, (96, 128)
COUNT = CHUNKS * CHUNKSIZE
IMAGES = scene(COUNT)


def record(path: Path, kind: str, **options: Any) -> Path:
    with imgstore_zarr.create(path, kind, SHAPE, chunksize=CHUNKSIZE, **options) as writer:
        for i, image in enumerate(IMAGES):
            writer.add_image(image, i - 3, i / 25)
            if i % 7 == 0:
                writer.add_extra_data(temperature=20 + i)
    return path


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("mp4") / "recording", "avc1/mp4", gop=5)


@pytest.fixture(scope="module", params=["avc1/mp4", "h264/mkv", "mjpeg/avi", "png/dir", "npy/dir"])
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("any") / "recording", request.param)


def test_opening_reads_each_index_once_and_no_media(mp4: Path) -> None:
    place = far(mp4)
    store = imgstore_zarr.open(place)
    assert (len(store), store.frame_min, store.frame_max) == (COUNT, -3, COUNT - 4)
    asked = [request.key for request in place.requests]
    indexes = [f"{chunk:06d}.npz" for chunk in range(CHUNKS)]
    assert sorted(key for key in asked if key.endswith(".npz")) == indexes
    assert asked.count("/") == 1
    # Beside these: what it is, told by its metadata.
    others = [key for key in asked if not key.endswith(".npz") and key != "/"]
    assert set(others) <= {"zarr.json?", "zarr.json", "metadata.yaml", "metadata.yaml?"}


@pytest.mark.parametrize("kind", ["avc1/mp4", "png/dir"])
def test_indexes_are_read_side_by_side(kind: str, tmp_path: Path) -> None:
    path = record(tmp_path / "recording", kind)
    together = threading.Barrier(CHUNKS, timeout=30)
    place = far(path)

    def meet(number: int) -> None:
        if place.requests[number].key.endswith(".npz"):
            together.wait()

    place.trouble = meet
    assert len(imgstore_zarr.open(place)) == COUNT


def test_the_same_as_local(recording: Path) -> None:
    local, store = imgstore_zarr.open(recording), imgstore_zarr.open(far(recording))
    assert store.user_metadata == local.user_metadata
    assert (store.created, store.uuid, store.encoding) == (local.created, local.uuid, None)
    np.testing.assert_array_equal(store.index.frame_number, local.index.frame_number)
    np.testing.assert_array_equal(store.index.frame_time, local.index.frame_time)
    expected = local.frames[...]
    np.testing.assert_array_equal(store.frames[...], expected)
    for position in random.Random(0).sample(range(COUNT), 25):
        np.testing.assert_array_equal(store.frames[position], expected[position])
    several = [119, 3, 44, 44, 0, 97, 3]
    np.testing.assert_array_equal(store.frames[several], expected[several])
    np.testing.assert_array_equal(store.frames[several, 10:50, ::2], expected[several, 10:50, ::2])
    image, (number, _) = store.get_image(frame_number=60)
    assert number == 60
    np.testing.assert_array_equal(image, expected[63])
    copy: ImgStore = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(copy.frames[50], expected[50])
    extra, there = store.get_extra_data(), local.get_extra_data()
    assert extra is not None
    assert there is not None
    assert extra.to_dict() == there.to_dict()


def test_images_are_read_side_by_side(tmp_path: Path) -> None:
    path = record(tmp_path / "recording", "png/dir")
    place = far(path)
    store = imgstore_zarr.open(place)
    together = threading.Barrier(10, timeout=30)
    place.trouble = lambda _: together.wait()
    with place.watched() as seen:
        images = store.frames[[*range(0, COUNT, 12), 0, 12]]
    np.testing.assert_array_equal(images[:10], IMAGES[::12])
    np.testing.assert_array_equal(images[10:], IMAGES[[0, 12]])
    assert len(seen) == 10


def test_chunks_are_opened_side_by_side(mp4: Path) -> None:
    place = far(mp4)
    store = imgstore_zarr.open(place)
    together = threading.Barrier(CHUNKS, timeout=30)

    def meet(number: int) -> None:
        if place.requests[number].start == 0 and place.requests[number].key.endswith(".mp4"):
            together.wait()

    place.trouble = meet
    positions = list(range(2, COUNT, CHUNKSIZE))
    expected = imgstore_zarr.open(mp4).frames[positions]
    np.testing.assert_array_equal(store.frames[positions], expected)


def test_a_chunk_without_index_costs_nothing(mp4: Path, tmp_path: Path) -> None:
    import shutil

    path = shutil.copytree(mp4, tmp_path / "recording")
    (path / "000002.npz").unlink()
    (path / "000004.mp4").unlink()
    place = far(path)
    store = imgstore_zarr.open(place)
    assert not any(request.key.startswith("000002.") for request in place.requests)
    kinds = {problem.kind for problem in store.report().problems}
    assert kinds >= {"chunk-without-index", "chunk-missing"}
    assert len(store) == COUNT - CHUNKSIZE
    with pytest.raises(ChunkMissingError, match=r"far://recording: chunk 4 \(000004\.mp4\)"):
        store.frames[3 * CHUNKSIZE]


def test_a_report_reads_headers_alone(mp4: Path) -> None:
    place = far(mp4)
    store = imgstore_zarr.open(place)
    with place.watched() as seen:
        report = store.report()
    assert report.ok
    videos = [request for request in seen if request.key.endswith(".mp4")]
    assert len(videos) == CHUNKS


def test_a_report_of_files_that_list_nothing_says_so(tmp_path: Path) -> None:
    path = record(tmp_path / "recording", "h264/mkv")
    place = far(path)
    store = imgstore_zarr.open(place)
    with place.watched() as seen:
        problems = store.report().problems
    assert [problem.kind for problem in problems] == ["not-checked"]
    assert f"{CHUNKS} files (000000.mkv" in problems[0].message
    assert not [request for request in seen if request.key.endswith(".mkv")]
    # Nor does anybody fetch them for advice.
    with place.watched() as seen:
        store.frames.boundaries()
        assert store.frames.source.preferred_chunks == (1, *SHAPE)
    assert seen == []
    # To verify means to read everything.
    assert imgstore_zarr.verify(place).problems == ()


def test_a_cut_off_file_is_reported(mp4: Path, tmp_path: Path) -> None:
    import shutil

    path = shutil.copytree(mp4, tmp_path / "recording")
    data = (path / "000001.mp4").read_bytes()
    (path / "000001.mp4").write_bytes(data[: len(data) // 2])
    store = imgstore_zarr.open(far(path))
    assert [(one.kind, one.chunk) for one in store.report().problems] == [("chunk-damaged", 1)]
    with pytest.raises(CorruptChunkError, match="far://recording: chunk 1"):
        store.frames[CHUNKSIZE]


def test_what_writes_is_refused(recording: Path) -> None:
    place = far(recording)
    with pytest.raises(UnsupportedFormatError, match="only with recordings in local directories"):
        imgstore_zarr.repair(place)
    store = imgstore_zarr.open(place)
    with pytest.raises(UnsupportedFormatError, match="only with recordings in local directories"):
        store.reindex()


class Unreliable:
    """Fails for some keys, as often as it is told."""

    def __init__(self, place: Far, ending: str, often: int) -> None:
        self.place, self.ending, self.left = place, ending, often
        place.trouble = self.trouble

    def trouble(self, number: int) -> None:
        if self.place.requests[number].key.endswith(self.ending) and self.left:
            self.left -= 1
            raise RequestError(5, "the connection broke")


@pytest.mark.parametrize(("kind", "ending"), [("avc1/mp4", ".mp4"), ("png/dir", ".png")])
def test_a_network_error_is_no_damage(kind: str, ending: str, tmp_path: Path) -> None:
    path = record(tmp_path / "recording", kind)
    place = far(path)
    Unreliable(place, ".npz", 1)
    with pytest.raises(RecordingAccessError, match=r"far://recording: reading .*\.npz.*connection"):
        imgstore_zarr.open(place)
    store = imgstore_zarr.open(place)
    expected = imgstore_zarr.open(path).frames[...]
    Unreliable(place, ending, 1)
    with pytest.raises(RecordingAccessError, match=r"far://recording: reading .*0000.*connection"):
        store.frames[30]
    np.testing.assert_array_equal(store.frames[30], expected[30])
    Unreliable(place, ending, 1)
    with pytest.raises(RecordingAccessError, match="the connection broke"):
        store.frames[[5, 45, 85]]
    np.testing.assert_array_equal(store.frames[[5, 45, 85]], expected[[5, 45, 85]])
    if ending == ".mp4":
        Unreliable(place, ending, 100)
        with pytest.raises(RecordingAccessError, match="the connection broke"):
            store.report()


def test_a_network_error_is_no_damage_of_extra_data(tmp_path: Path) -> None:
    path = record(tmp_path / "recording", "avc1/mp4", gop=5)
    with h5py.File(path / "000000.extra_data.h5", "w") as file:
        file.attrs["datasets"] = "analog"
        camera = np.dtype([("frame_number", "i8"), ("frame_time", "f8"), ("frame_index", "i8")])
        rows = [(i - 3, i / 25, i) for i in range(CHUNKSIZE)]
        file["camera"] = np.array(rows, camera)
        file["analog"] = np.arange(CHUNKSIZE, dtype=float)[None]
        file["analog"].attrs["column_names"] = "volts"
        file["sample_delay"] = np.zeros(CHUNKSIZE)
    expected = imgstore_zarr.open(path).get_extra_data()
    assert expected is not None
    for ending in (".h5", ".json"):
        place = far(path)
        store = imgstore_zarr.open(place)
        Unreliable(place, ending, 1)
        with pytest.raises(RecordingAccessError, match="the connection broke"):
            store.get_extra_data(ignore_corrupt_chunks=True)
        extra = store.get_extra_data()
        assert extra is not None
        assert extra.equals(expected)


@pytest.fixture
def dateless(mp4: Path, tmp_path: Path) -> ObjectStore:
    stores = pytest.importorskip("obstore.store")
    place = ObjectStore(stores.MemoryStore(), "recording", "memory://place/recording")
    for name in Directory(mp4).names():
        data = (mp4 / name).read_bytes()
        if name == "metadata.yaml":
            document = yaml.safe_load(data)
            del document["__store"]["created_utc"]
            data = yaml.safe_dump(document).encode()
        place.write(name, data)
    return place


def test_in_object_storage(dateless: ObjectStore, mp4: Path) -> None:
    store = imgstore_zarr.open(dateless)
    modified = dateless.head("metadata.yaml")["last_modified"]
    assert store.info.created == modified.astimezone(dt.UTC)
    np.testing.assert_array_equal(store.frames[...], imgstore_zarr.open(mp4).frames[...])


# A real server.


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of GOPs that are larger than the head of a file."""
    path = tmp_path_factory.mktemp("large") / "recording"
    images = np.random.default_rng(1).integers(0, 255, (80, 192, 256), dtype=np.uint8)
    with imgstore_zarr.create(
        path, "avc1/mp4", (192, 256), chunksize=40, gop=8, preset="ultrafast"
    ) as writer:
        for i, image in enumerate(images):
            writer.add_image(image, i, i / 25)
    return path


def test_what_frames_take_at_a_server(large: Path, s3: Place, through_proxy: ThroughProxy) -> None:
    s3.below("recording").fill(large)
    place, proxy = through_proxy(s3.below("recording"))
    store = imgstore_zarr.open(place.url, storage_options=place.options)
    assert proxy.requests(key=r"\.mp4") == []
    assert len(proxy.requests(key=r"\.npz")) == 2
    assert len(proxy.requests()) <= 6
    proxy.forget()
    expected = imgstore_zarr.open(large).frames[...]
    np.testing.assert_array_equal(store.frames[60], expected[60])
    assert [request.status for request in proxy.requests()] == [206] * 3
    proxy.forget()
    np.testing.assert_array_equal(store.frames[63], expected[63])
    np.testing.assert_array_equal(store.frames[56], expected[56])
    assert proxy.requests() == []
    np.testing.assert_array_equal(store.frames[79], expected[79])
    (request,) = proxy.requests()
    assert request.sent < (large / "000001.mp4").stat().st_size / 3
    proxy.forget()
    np.testing.assert_array_equal(store.frames[...], expected)
    # Of the first chunk head, list and media; of the second what is missing on both sides.
    assert len(proxy.requests(key="000000.mp4")) == 3
    assert len(proxy.requests(key="000001.mp4")) <= 3


def test_a_server_that_breaks_answers_off(
    large: Path, s3: Place, through_proxy: ThroughProxy
) -> None:
    s3.below("recording").fill(large)
    place, proxy = through_proxy(s3.below("recording"))
    quick = place.given(retry_config={"max_retries": 0})
    store = imgstore_zarr.open(quick.url, storage_options=quick.options)
    expected = imgstore_zarr.open(large).frames[...]
    errors = 0
    for skip in range(5):
        with proxy.faulty(Fault(key=r"\.mp4", skip=skip, status=503)):
            for position in (70, 20, 45, 79):
                try:
                    np.testing.assert_array_equal(store.frames[position], expected[position])
                except RecordingAccessError:
                    errors += 1
    assert errors
    np.testing.assert_array_equal(store.frames[...], expected)


def test_on_a_web_server(large: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(large, tmp_path / "recording")
    place = servers.web(tmp_path).below("recording")
    store = imgstore_zarr.open(place.url)
    expected = imgstore_zarr.open(large).frames[...]
    np.testing.assert_array_equal(store.frames[[77, 3, 41]], expected[[77, 3, 41]])
    np.testing.assert_array_equal(store.frames[...], expected)
