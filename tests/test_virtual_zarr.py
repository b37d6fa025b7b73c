"""Recordings of every layout as Zarr groups that are made while they are read."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import tensorstore
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.abc.store import (
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.core.sync import sync
from zarr.testing.store import StoreTests

import imgstore_zarr
from imgstore_zarr import (
    ChunkMissingError,
    CorruptChunkError,
    InvalidMetadataError,
    UnsupportedFormatError,
)
from imgstore_zarr.frames import FrameSource
from imgstore_zarr.virtual_zarr import VirtualGroup, VirtualZarr
from imgstore_zarr.virtual_zarr.recording import CHUNK_BYTES, frames_per_chunk
from imgstore_zarr.virtual_zarr.store import _reopened
from tests.conftest import Record
from tests.test_motif_h5 import Dataset, write_h5
from tests.videos import scene

pytest.importorskip(
    "anyio", reason="zarr's own tests of stores are asynchronous; pip install anyio"
)

SHAPE = (256, 320)
COUNT = 30
NUMBERS = [7, 8, 9, *range(20, 20 + COUNT - 3)]
TIMES = [1.7e9 + i / 25 + (i > 10) for i in range(COUNT)]


@dataclass(frozen=True)
class Case:
    """A recording to be made, and what its frames are where that is known without reading it."""

    format: str
    dtype: str = "u1"
    color: bool = False
    encoding: str | None = None
    lossless: bool = True

    @property
    def name(self) -> str:
        parts = (self.format, self.dtype, "color" * self.color, self.encoding or "")
        return "-".join(filter(None, parts))

    def images(self) -> NDArray[Any]:
        images = scene(COUNT, SHAPE)
        if self.color:
            images = np.stack([images, images[:, ::-1], np.roll(images, 9, 2)], axis=-1)
        if self.dtype == "u1":
            return images
        return (images.astype(self.dtype) * 3 - 7).astype(self.dtype)

    def expected(self, store: imgstore_zarr.ImgStore) -> NDArray[Any]:
        if not self.lossless:
            return store.frames[:]
        if self.encoding is None:
            return self.images()
        code = getattr(
            cv2, f"COLOR_{self.encoding.removeprefix('cv_').replace('bayer', 'Bayer')}2BGR"
        )
        return np.stack([cv2.cvtColor(image, code) for image in self.images()])


CASES = [
    Case("raw/zarr"),
    Case("raw/zarr", "i8"),
    Case("lz4/zarr", "u2"),
    Case("zstd/zarr", "f4"),
    Case("zstd/zarr", "f2"),
    Case("zstd/zarr", color=True),
    Case("avc1/mp4", lossless=False),
    Case("h264/mkv", color=True, lossless=False),
    Case("mjpeg/avi", lossless=False),
    Case("npy/dir", "u2"),
    Case("png/dir", color=True),
    Case("jpg", lossless=False),
]
ENCODED = [
    Case("raw/zarr", encoding="cv_bayerRG"),
    Case("png/dir", encoding="cv_bayerGB"),
]

Made = tuple[Path, NDArray[Any]]
Make = Callable[[Case], Path]


@pytest.fixture
def make(record: Record) -> Make:
    def write(case: Case) -> Path:
        encoding = {} if case.encoding is None else {"encoding": case.encoding.lower()}
        return record(
            case.images(),
            format=case.format,
            frame_number=NUMBERS,
            frame_time=TIMES,
            chunksize=13,
            metadata={"animal": "ü", "rig": {"lamp": 3}},
            **encoding,
        )

    return write


def group_of(store: imgstore_zarr.ImgStore) -> zarr.Group:
    return zarr.open_group(store.as_zarr(), mode="r")


def attributes(node: zarr.Group | zarr.Array[Any]) -> dict[str, Any]:
    return dict(node.attrs)


def array(group: zarr.Group, name: str) -> NDArray[Any]:
    found = group[name]
    assert isinstance(found, zarr.Array)
    return np.asarray(found[...])


def virtual(store: imgstore_zarr.ImgStore) -> VirtualZarr:
    made = store.as_zarr()
    assert isinstance(made, VirtualZarr)
    return made


def everything(group: VirtualGroup) -> dict[str, bytes]:
    found = {}
    for key in group.all_keys():
        size = group.size(key)
        assert size is not None
        found[key] = group.read(key, 0, size).tobytes()
        assert len(found[key]) == size
    return found


@pytest.mark.parametrize("case", [*CASES, *ENCODED], ids=lambda case: case.name)
def test_zarr_and_xarray_read_every_layout(make: Make, case: Case) -> None:
    with imgstore_zarr.open(make(case)) as store:
        expected = case.expected(store)
        group = group_of(store)
        image = group["image"]
        assert isinstance(image, zarr.Array)
        assert (image.shape, image.dtype) == (expected.shape, expected.dtype)
        # Several chunks, the last of which is not full.
        assert 1 <= image.chunks[0] < COUNT
        assert image.chunks[1:] == expected.shape[1:]
        np.testing.assert_array_equal(image[:], expected)
        assert array(group, "frame_number").tolist() == NUMBERS
        assert array(group, "frame_time").tolist() == TIMES

        data = xr.open_zarr(store.as_zarr(), chunks=None)
        assert data.image.dims == ("frame", "y", "x", "channel")[: expected.ndim]
        assert set(data.coords) == {"frame_number", "frame_time"}
        np.testing.assert_array_equal(data.image[::-7].values, expected[::-7])
        np.testing.assert_array_equal(data.frame_number, NUMBERS)
        assert data.frame_time.attrs == {"units": "s"}
        assert data.frame_time.dtype == np.float64


@pytest.mark.parametrize(
    "case", [CASES[0], CASES[2], CASES[6], CASES[7], CASES[10]], ids=lambda case: case.name
)
def test_tensorstore_reads_the_keys(make: Make, case: Case) -> None:
    with imgstore_zarr.open(make(case)) as store:
        context = tensorstore.Context()
        memory = tensorstore.KvStore.open("memory://", context=context).result()
        for key, data in everything(virtual(store).group).items():
            memory.write(key, data).result()
        for name, expected in (
            ("image", case.expected(store)),
            ("frame_number", np.array(NUMBERS)),
            ("frame_time", np.array(TIMES)),
        ):
            spec = {"driver": "zarr3", "kvstore": f"memory://{name}/"}
            found = tensorstore.open(spec, context=context, read=True).result()
            np.testing.assert_array_equal(found.read().result(), expected)


def test_attributes_are_those_of_the_zarr_layout(make: Make) -> None:
    path = make(Case("lz4/zarr", "u2"))
    real = json.loads((path / "zarr.json").read_text())["attributes"]
    with imgstore_zarr.open(path) as store:
        found = dict(group_of(store).attrs)
    real["imgstore_zarr"].pop("checksums")
    assert found == real


def test_what_is_decoded_has_no_encoding(make: Make) -> None:
    with imgstore_zarr.open(make(ENCODED[0])) as store:
        assert attributes(group_of(store))["imgstore_zarr"]["encoding"] is None
        store.disable_decoding()
        group = group_of(store)
        assert attributes(group)["imgstore_zarr"]["encoding"] == "cv_bayerrg"
        np.testing.assert_array_equal(array(group, "image"), ENCODED[0].images())


def test_corrected_times(make: Make) -> None:
    with imgstore_zarr.open(make(CASES[0])) as store:
        view = store.with_clock(imgstore_zarr.ClockCorrection(offset=5.0))
        assert array(group_of(view), "frame_time").tolist() == [time + 5 for time in TIMES]
        assert pickle.loads(pickle.dumps(view.as_zarr())) == view.as_zarr()
        assert view.as_zarr() != store.as_zarr()


def test_a_recording_without_frames(record: Record) -> None:
    with imgstore_zarr.open(record(np.empty((0, 8, 9), np.uint8))) as store:
        group = group_of(store)
        assert array(group, "image").shape == (0, 8, 9)
        assert array(group, "frame_number").shape == (0,)
        assert all(key.endswith("zarr.json") for key in virtual(store).group.all_keys())


# What is read, and when.


class Counting:
    """A source that says which frames were read."""

    def __init__(self, source: FrameSource) -> None:
        self.source = source
        self.read_positions: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def read(self, positions: NDArray[np.int64], *arguments: Any) -> NDArray[Any]:
        self.read_positions.append(positions.tolist())
        return self.source.read(positions, *arguments)


def counted(store: imgstore_zarr.ImgStore) -> Counting:
    counting = Counting(store.frames.source)
    store.__dict__["_source"] = counting
    return counting


def get(store: Store, key: str, byte_range: Any = None) -> bytes | None:
    buffer = sync(store.get(key, default_buffer_prototype(), byte_range))
    return None if buffer is None else buffer.to_bytes()


def test_only_the_frames_of_a_chunk_are_read(make: Make) -> None:
    with imgstore_zarr.open(make(CASES[0])) as store:
        counting = counted(store)
        made = store.as_zarr()
        zarr.open_group(made, mode="r")["image"]
        sizes = sync(made.getsize("image/c/1/0/0")), sync(made.getsize("image/c/2/0/0"))
        assert sync(made.exists("image/c/2/0/0"))
        assert counting.read_positions == []
        # The last chunk is as long as the others.
        assert sizes == (12 * math.prod(SHAPE),) * 2
        chunk = get(made, "image/c/2/0/0")
        assert counting.read_positions == [[24, 25, 26, 27, 28, 29]]
        assert chunk == CASES[0].images()[24:].tobytes() + bytes(6 * math.prod(SHAPE))


@pytest.mark.parametrize(
    ("byte_range", "start", "stop", "frames"),
    [
        (RangeByteRequest(81920, 163840), 81920, 163840, [[13]]),
        (RangeByteRequest(81919, 81921), 81919, 81921, [[12, 13]]),
        (RangeByteRequest(5, 10**12), 5, None, [[*range(12, 24)]]),
        (RangeByteRequest(10**12, 10**13), 10**12, None, []),
        (OffsetByteRequest(11 * 81920 + 3), 11 * 81920 + 3, None, [[23]]),
        (SuffixByteRequest(1), -1, None, [[23]]),
        (SuffixByteRequest(10**12), 0, None, [[*range(12, 24)]]),
    ],
)
def test_a_part_of_a_chunk_reads_only_its_frames(
    make: Make, byte_range: Any, start: int, stop: int | None, frames: list[list[int]]
) -> None:
    with imgstore_zarr.open(make(CASES[0])) as store:
        counting = counted(store)
        whole = CASES[0].images()[12:24].tobytes()
        assert get(store.as_zarr(), "image/c/1/0/0", byte_range) == whole[start:stop]
        assert counting.read_positions == frames


@pytest.mark.parametrize(
    "key",
    [
        "image/c/3/0/0",
        "image/c/01/0/0",
        "image/c/-1/0/0",
        "image/c/٢/0/0",
        "image/c/1/0",
        "image/c/1/0/1",
        "image/c/1/0/0/0",
        "image/c/1/0/0/",
        "image/c",
        "image/c/",
        "image",
        "c/0",
        "image/c/99999999999999999999999999/0/0",
        "frame_number/c/1",
        "extra/zarr.json",
        "",
        "/zarr.json",
        "../zarr.json",
    ],
)
def test_keys_that_there_are_not(make: Make, key: str) -> None:
    with imgstore_zarr.open(make(CASES[0])) as store:
        made = store.as_zarr()
        assert get(made, key) is None
        assert not sync(made.exists(key))


@dataclass
class Sizes:
    """As much of a source as says how frames are cut into chunks."""

    shape: tuple[int, ...]
    unit: int
    dtype: np.dtype[Any] = np.dtype(np.uint8)  # noqa: RUF009 - immutable

    @property
    def preferred_chunks(self) -> tuple[int, ...]:
        return (self.unit, *self.shape[1:])


@pytest.mark.parametrize(
    ("image_bytes", "unit", "frames"),
    [
        (2**20, 25, 1),
        (2**22, 25, 1),
        (2**18, 25, 4),  # no part of a GOP is longer than half of that
        (2**17, 25, 5),
        (2**15, 25, 25),
        (2**14, 25, 50),
        (2**18, 4500, 4),
        (2**10, 1, 1024),
    ],
)
def test_chunks_are_small_parts_of_what_is_read_together(
    image_bytes: int, unit: int, frames: int
) -> None:
    assert CHUNK_BYTES == 2**20
    source: Any = Sizes((10**6, image_bytes, 1), unit)
    assert frames_per_chunk(source) == frames


# Damage.


def unreadable(path: Path) -> tuple[type[Exception], str]:
    """Damage the second chunk of a recording; return the error and what it names."""
    files = {
        "raw/zarr": path / "image/c/1/0/0",
        "avc1/mp4": path / "000001.mp4",
        "npy/dir": path / "000001/000007.npy",
    }
    file = next(file for file in files.values() if file.exists())
    if file.suffix == ".mp4":
        data = bytearray(file.read_bytes())
        data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
        file.write_bytes(data)
        return CorruptChunkError, "chunk 1"
    file.unlink()
    return ChunkMissingError, str(path)


@pytest.mark.parametrize("case", [CASES[0], CASES[6], CASES[9]], ids=lambda case: case.name)
def test_frames_that_cannot_be_read_raise(make: Make, case: Case) -> None:
    path = make(case)
    with imgstore_zarr.open(path) as store:
        expected = case.expected(store)
    error, named = unreadable(path)
    with imgstore_zarr.open(path) as store:
        group = group_of(store)
        image = group["image"]
        assert isinstance(image, zarr.Array)
        with pytest.raises(error, match=named) as raised:
            image[:]
        assert isinstance(raised.value, OSError)
        assert not isinstance(raised.value, FileNotFoundError | KeyError)
        with pytest.raises(error):
            xr.open_zarr(store.as_zarr(), chunks=None).image.values  # noqa: B018
        # What is whole is read all the same.
        np.testing.assert_array_equal(image[:10], expected[:10])


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), KeyError("gone")])
def test_no_error_is_taken_for_a_chunk_that_is_not_there(make: Make, error: Exception) -> None:
    class Failing(Counting):
        def read(self, positions: NDArray[np.int64], *arguments: Any) -> NDArray[Any]:
            raise error

    with imgstore_zarr.open(make(CASES[0])) as store:
        store.__dict__["_source"] = Failing(store.frames.source)
        with pytest.raises(ChunkMissingError, match="image/c/0/0/0"):
            get(store.as_zarr(), "image/c/0/0/0")


# Extra data.


def test_extra_data_as_columns(record: Record) -> None:
    extra: dict[int, dict[str, Any]] = {
        0: {"temperature": 20.5, "lamp": True, "odd/name": 3, "note": "ä"},
        2: {"temperature": 21.5, "lamp": False, "odd/name": 4, "note": [1, None]},
        3: {"temperature": 22.5, "lamp": True, "odd/name": 5},
    }
    for format in ("raw/zarr", "npy/dir"):
        with imgstore_zarr.open(record(scene(4), format=format, extra=extra)) as store:
            group = group_of(store)
            table = store.get_extra_data()
            assert table is not None
            assert array(group, "extra/temperature").tolist() == [20.5, 21.5, 22.5]
            assert array(group, "extra/lamp").tolist() == [True, False, True]
            assert array(group, "extra/frame_index").tolist() == [0, 2, 3]
            parts = group["extra"]
            assert isinstance(parts, zarr.Group)
            odd = [
                found
                for _, found in parts.arrays()
                if attributes(found).get("imgstore_zarr", {}).get("field") == "odd/name"
            ]
            assert [np.asarray(found[:]).tolist() for found in odd] == [[3, 4, 5]]
            note = parts["note"]
            assert isinstance(note, zarr.Array)
            assert note.attrs["imgstore_zarr"] == {"type": "json"}
            texts = [row.tobytes().rstrip(b"\0") for row in np.asarray(note[:])]
            assert [json.loads(text) for text in texts[:2]] == ["ä", [1, None]]
            assert texts[2] == b""
            data = xr.open_zarr(store.as_zarr(), group="extra", chunks=None)
            assert data.temperature.dims == ("record",)


def test_samples_of_motif(record: Record, caplog: pytest.LogCaptureFixture) -> None:
    path = record(scene(4), format="npy/dir", chunksize=4)
    samples = np.random.default_rng(0).normal(size=(2, 700)).astype("f4")
    h5 = path / "000000.extra_data.h5"
    write_h5(h5, {"audio": Dataset("left, right", samples, 250.0)}, first=0, used=range(4))
    with h5py.File(h5) as file:
        begin = file["camera"][0]["frame_time"]
    with imgstore_zarr.open(path) as store:
        group = group_of(store)
        np.testing.assert_array_equal(array(group, "sampled/audio/left"), samples[0])
        np.testing.assert_array_equal(array(group, "sampled/audio/right"), samples[1])
        times = array(group, "sampled/audio/time")
        np.testing.assert_allclose(times, begin + np.arange(700) / 250)
        assert group["sampled/audio"].attrs["samplerate"] == 250.0
    h5.write_bytes(h5.read_bytes()[:1000])
    with imgstore_zarr.open(path) as store:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "imgstore_zarr"):
            group = group_of(store)
        assert "without the extra data" in caplog.text
        assert str(h5.name) in caplog.text
        assert {name for name, _ in group.members()} == {"image", "frame_number", "frame_time"}


# A recording that grows, and stores that travel.


def test_the_group_is_what_the_recording_was(tmp_path: Path) -> None:
    images = scene(20, SHAPE)
    path = tmp_path / "growing"
    with imgstore_zarr.create(path, "raw/zarr", SHAPE, chunksize=8) as writer:
        for i in range(10):
            writer.add_image(images[i], i, float(i))
        writer.flush()
        store = imgstore_zarr.open(path)
        made = store.as_zarr()
        sent = pickle.dumps(made)
        for i in range(10, 20):
            writer.add_image(images[i], i, float(i))
        writer.flush()
        group = zarr.open_group(made, mode="r")
        np.testing.assert_array_equal(array(group, "image"), images[:10])
        assert array(group, "frame_number").tolist() == [*range(10)]
        for travelled in (pickle.loads(sent), pickle.loads(pickle.dumps(made))):
            assert travelled == made
            np.testing.assert_array_equal(
                array(zarr.open_group(travelled, mode="r"), "image"), images[:10]
            )
        assert store.refresh() == 10
        assert pickle.loads(pickle.dumps(made)) == made
        np.testing.assert_array_equal(array(group, "image"), images[:10])
        assert store.as_zarr() != made
        np.testing.assert_array_equal(array(group_of(store), "image"), images)
        writer.empty()
        for i in range(12):
            writer.add_image(images[-i], -i, float(i))
        writer.flush()
    # What is open in this process already stays as it was; another one opens it anew.
    _reopened.cache_clear()
    with pytest.raises(InvalidMetadataError, match="not what it was"):
        pickle.loads(sent)


def test_it_is_for_readers_of_zarr(make: Make) -> None:
    with (
        imgstore_zarr.open(make(CASES[6])) as store,
        pytest.raises(UnsupportedFormatError, match=r"open it with zarr or xarray\.open_zarr"),
    ):
        imgstore_zarr.open(store.as_zarr())


def first_frame(store: Store) -> NDArray[Any]:
    image = zarr.open_group(store, mode="r")["image"]
    assert isinstance(image, zarr.Array)
    return np.asarray(image[0])


def test_in_another_process(make: Make) -> None:
    with imgstore_zarr.open(make(CASES[6])) as store:
        made = store.as_zarr()
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply_async(first_frame, (made,)).get(60)
        np.testing.assert_array_equal(found, store.frames[0])


def test_many_threads_read_video(make: Make) -> None:
    with imgstore_zarr.open(make(CASES[6])) as store:
        expected = store.frames[:]
        group = virtual(store).group
        wrong = []

        def work(seed: int) -> None:
            for chunk in np.random.default_rng(seed).permutation(3).tolist():
                data = group.read(f"image/c/{chunk}/0/0", 0, 12 * math.prod(SHAPE))
                frames = data.reshape(12, *SHAPE)[: COUNT - 12 * chunk]
                if not np.array_equal(frames, expected[12 * chunk : 12 * chunk + 12]):
                    wrong.append(chunk)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []


# zarr's own tests of stores.


class Filled(VirtualZarr):
    """A store that begins without keys, and gets those that a test wants to read."""

    def __init__(self, recording: Any) -> None:
        super().__init__(recording)
        self._group._documents.clear()
        self._group._arrays = {}

    async def set(self, key: str, value: Buffer) -> None:
        self._group._documents[key] = value.to_bytes()


@pytest.mark.anyio
class TestStore(StoreTests[Filled, cpu.Buffer]):
    store_cls = Filled
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    async def set(self, store: Filled, key: str, value: Buffer) -> None:
        store._group._documents[key] = value.to_bytes()

    async def get(self, store: Filled, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(store._group._documents[key])

    @pytest.fixture
    def store_kwargs(self, make: Make) -> dict[str, Any]:
        return {"recording": imgstore_zarr.open(make(CASES[0]))}

    @pytest.fixture
    def store(self, open_kwargs: dict[str, Any]) -> Filled:
        return sync(Filled.open(**open_kwargs))

    @pytest.fixture
    def store_not_open(self, store_kwargs: dict[str, Any]) -> Filled:
        return Filled(**store_kwargs)

    def test_store_eq(self, store: Filled, store_kwargs: dict[str, Any]) -> None:
        whole = VirtualZarr(**store_kwargs)
        assert whole == VirtualZarr(**store_kwargs)
        assert whole != store.group

    def test_store_repr(self, store: Filled) -> None:
        assert str(store) == f"virtual://{store.group.name}"
        assert str(store) in repr(store)

    def test_store_supports_writes(self, store: Filled) -> None:
        assert not store.supports_writes

    def test_store_supports_listing(self, store: Filled) -> None:
        assert store.supports_listing

    def test_store_read_only(self, store: Filled) -> None:
        assert store.read_only
        with pytest.raises(AttributeError):
            store.read_only = False  # type: ignore[misc]

    async def test_read_only_store_raises(self, open_kwargs: dict[str, Any]) -> None:
        store = await VirtualZarr.open(**open_kwargs)
        for writing in (store.set("foo", cpu.Buffer.from_bytes(b"bar")), store.delete("foo")):
            with pytest.raises(ValueError, match="does not support writing"):
                await writing

    async def test_with_read_only_store(self, open_kwargs: dict[str, Any]) -> None:
        store = await VirtualZarr.open(**open_kwargs)
        with pytest.raises(NotImplementedError, match="with_read_only is not implemented"):
            store.with_read_only(read_only=False)
        assert store.with_read_only(read_only=True) == store

    async def test_serializable_store(self, store: Filled) -> None:
        with imgstore_zarr.open(store.group.name) as recording:
            whole = recording.as_zarr()
            assert pickle.loads(pickle.dumps(whole)) == whole


# There is only one way to open it, and nothing is written.
for _name in (
    "test_store_open_read_only",
    "test_set",
    "test_set_not_open",
    "test_set_many",
    "test_set_if_not_exists",
    "test_clear",
):
    setattr(TestStore, _name, None)
