"""Recordings as trees: images, records, and what Motif sampled, on time axes of their own.

No public recording has Motif's HDF5 files; these are written from the facts in the design, and what
is expected is read out of them by h5py.
"""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr import (
    ChunkMissingError,
    CorruptChunkError,
    InvalidMetadataError,
    RecordingAccessError,
)
from imgstore_zarr.dataarray import BLOCK_BYTES, MAX_BLOCKS
from imgstore_zarr.datatree import to_datatree
from imgstore_zarr.extra import HasSampledData, SampledData
from imgstore_zarr.sampled import SampledArray, block_lengths
from tests.conftest import Record
from tests.test_dataarray import gray, indexer
from tests.test_motif_h5 import Dataset, write_h5

ROWS, RATE = 8, 250.0
CHUNKS = 3
# Samples of audio per chunk: chunks need not be equally long.
AUDIO = (500, 320, 411)
# Rows with a frame: all, some in the middle, the first ones.
USED: tuple[Sequence[int], ...] = (range(ROWS), (1, 2, 5), range(4))


def audio(chunk: int, rate: float | None = RATE, columns: str = "left, right") -> Dataset:
    samples = np.random.default_rng(chunk).normal(size=(2, AUDIO[chunk])).astype("f4")
    return Dataset(columns, samples, rate)


def daq(chunk: int, rate: float | None = None) -> Dataset:
    return Dataset("volts, light", np.arange(2.0 * ROWS).reshape(2, ROWS) + 100 * chunk, rate)


def set_times(path: Path, chunk: int) -> None:
    """Give the frames times such as there are, a gap between chunks."""
    with h5py.File(path, "r+") as file:
        camera = file["camera"][:]
        camera["frame_time"] = 1.7e9 + 100.0 * chunk + np.arange(ROWS) / 25
        file["camera"][...] = camera


def write_chunk(root: Path, chunk: int, datasets: Mapping[str, Dataset]) -> Path:
    path = root / f"{chunk:06d}.extra_data.h5"
    write_h5(path, datasets, first=10 * chunk, used=USED[chunk], more=[("sensor_time", "<f4")])
    set_times(path, chunk)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A recording of images in three chunks."""
    root = tmp_path / "recording"
    with imgstore_zarr.create(root, "npy/dir", (4, 5), chunksize=2) as writer:
        for i in range(2 * CHUNKS):
            writer.add_image(np.full((4, 5), i, np.uint8), i, 1.7e9 + i / 25)
    return root


@pytest.fixture
def root(images: Path) -> Path:
    """The same, with DAQ channels by frames, and audio."""
    for chunk in range(CHUNKS):
        write_chunk(images, chunk, {"daq": daq(chunk), "audio": audio(chunk)})
    return images


def files(root: Path) -> list[Path]:
    return sorted(root.glob("*.extra_data.h5"))


def expected_audio(root: Path, row: int) -> NDArray[Any]:
    parts = []
    for path in files(root):
        with h5py.File(path) as file:
            parts.append(file["audio"][row])
    return np.concatenate(parts)


def expected_times(root: Path, rate: float = RATE) -> NDArray[Any]:
    parts = []
    for path in files(root):
        with h5py.File(path) as file:
            camera = file["camera"][:]
            first = camera["frame_time"][camera["frame_number"] >= 0][0]
            parts.append(first + np.arange(file["audio"].shape[1]) / rate)
    return np.concatenate(parts)


def expected_daq(root: Path, row: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values and times of the rows that have frames."""
    values, times = [], []
    for path in files(root):
        with h5py.File(path) as file:
            camera = file["camera"][:]
            used = camera["frame_number"] >= 0
            values.append(file["daq"][row][used])
            times.append(camera["frame_time"][used])
    return np.concatenate(values), np.concatenate(times)


def tree_of(root: Path) -> xr.DataTree:
    return imgstore_zarr.open(root).to_datatree()


def at(tree: xr.DataTree, name: str) -> xr.DataArray:
    found = tree[name]
    assert isinstance(found, xr.DataArray)
    return found


def together(*arrays: xr.DataArray) -> list[NDArray[Any]]:
    """Compute arrays in one graph, where they must not share what is not the same."""
    names = [str(i) for i in range(len(arrays))]
    whole = xr.Dataset(dict(zip(names, (array.variable for array in arrays), strict=True)))
    done = whole.compute()
    return [done[name].to_numpy() for name in names]


class Counts:
    """Which files of HDF5 were opened, and which of their datasets were read."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.opened: list[str] = []
        self.read: list[str] = []
        open_file, get = h5py.File.__init__, h5py.Dataset.__getitem__

        def counting_open(file: Any, name: Any, *args: Any, **kwargs: Any) -> None:
            # h5py itself makes objects for files that are open.
            if isinstance(name, str | Path):
                self.opened.append(Path(name).name[:6])
            open_file(file, name, *args, **kwargs)

        def counting_get(dataset: Any, *args: Any, **kwargs: Any) -> Any:
            self.read.append(dataset.name.strip("/"))
            return get(dataset, *args, **kwargs)

        patch.setattr(h5py.File, "__init__", counting_open)
        patch.setattr(h5py.Dataset, "__getitem__", counting_get)

    def clear(self) -> None:
        self.opened.clear()
        self.read.clear()


@pytest.fixture
def counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> Counts:
    return Counts(monkeypatch)


# What is in it.


def test_audio_has_a_time_axis_of_its_own(root: Path) -> None:
    tree = tree_of(root)
    assert set(tree.children) == {"extra", "daq", "audio"}
    group = tree.children["audio"]
    assert set(group.data_vars) == {"left", "right"}
    assert group.sizes["sample"] == sum(AUDIO)
    assert group.attrs == {"samplerate": RATE, "samplerate_units": "Hz"}
    for row, name in enumerate(["left", "right"]):
        assert group[name].dims == ("sample",)
        assert group[name].attrs["samplerate"] == RATE
        np.testing.assert_array_equal(group[name], expected_audio(root, row), strict=False)
        assert group[name].dtype == np.float32
    assert group["time"].attrs == {"units": "s"}
    np.testing.assert_array_equal(group["time"], expected_times(root))
    # A coordinate of each variable.
    np.testing.assert_array_equal(at(group, "left")[503:505].time, expected_times(root)[503:505])


def test_rows_of_daq_belong_to_frames(root: Path) -> None:
    group = tree_of(root).children["daq"]
    for row, name in enumerate(["volts", "light"]):
        values, times = expected_daq(root, row)
        assert len(values) == sum(len(used) for used in USED)
        np.testing.assert_array_equal(group[name], values)
        np.testing.assert_array_equal(group["time"], times)
    assert group.attrs == {}


def test_a_rate_does_not_move_rows_that_belong_to_frames(images: Path) -> None:
    write_chunk(images, 1, {"daq": daq(1, rate=1000)})
    group = tree_of(images).children["daq"]
    np.testing.assert_array_equal(group["time"], expected_daq(images, 0)[1])
    assert group.attrs["samplerate"] == 1000


def test_records_are_those_of_the_table(root: Path) -> None:
    store = imgstore_zarr.open(root)
    with pytest.warns(UserWarning, match="audio"):
        table = store.get_extra_data()
    assert table is not None
    records = store.to_datatree()["extra"].to_dataset()
    assert records.sizes == {"record": len(table)}
    assert list(records.data_vars) == list(table.columns)
    for name in table.columns:
        np.testing.assert_array_equal(records[name], table[name])
        assert records[name].dtype == table[name].dtype
    assert records.record.to_numpy().tolist() == list(range(len(table)))


def test_images_and_frame_metadata_are_at_the_root(root: Path) -> None:
    tree = tree_of(root)
    np.testing.assert_array_equal(at(tree, "image")[:, 0, 0], np.arange(6))
    assert tree["frame_number"].to_numpy().tolist() == list(range(6))
    assert tree["frame_time"].attrs == {"units": "s"}


def test_layouts_without_samples_are_as_before(record: Record) -> None:
    images = np.zeros((3, 4, 5), np.uint8)
    fields = {"volts": 2.5, "name": "a", "channel": 7, "record": 8}
    path = record(images, extra={0: fields, 2: fields})
    store = imgstore_zarr.open(path)
    table = store.get_extra_data()
    assert table is not None
    for tree in (store.to_datatree(), xr.open_datatree(path, engine="imgstore", chunks={})):
        assert set(tree.children) == {"extra"}
        group = tree.children["extra"]
        # `record` counts them, and `channel` would be hidden by the coordinate of colour images.
        for name, shown in zip(table, [*table], strict=True):
            shown = f"{name}_" if name in ("channel", "record") else str(name)
            assert group[shown].to_numpy().tolist() == table[name].tolist()


def test_a_field_named_channel_in_a_colour_recording(record: Record) -> None:
    path = record(np.zeros((2, 4, 5, 3), np.uint8), extra={0: {"channel": 5}})
    records = tree_of(path)["extra"].to_dataset()
    assert records["channel_"].to_numpy().tolist() == [5]
    assert records["frame_index"].to_numpy().tolist() == [0]


def test_json_in_some_chunks(root: Path) -> None:
    files(root)[1].unlink()
    (root / "000001.extra_data.json").write_text(
        '[{"volts": 1, "frame_number": 3, "frame_index": 9}]'
    )
    tree = tree_of(root)
    with pytest.warns(UserWarning, match="audio"):
        table = imgstore_zarr.open(root).get_extra_data()
    assert table is not None
    assert tree["extra/volts"].to_numpy().tolist() == table["volts"].tolist()
    assert len(table) == ROWS + 1 + 4
    # What follows it begins with its own first frame.
    np.testing.assert_array_equal(tree["audio/left"], expected_audio(root, 0))
    np.testing.assert_array_equal(tree["audio/time"], expected_times(root))


def test_tables_of_other_columns(root: Path) -> None:
    path = root / "000001.extra_data.h5"
    write_h5(path, {"daq": daq(1), "audio": audio(1)}, used=USED[1])  # without sensor_time
    tree = tree_of(root)
    with pytest.warns(UserWarning, match="audio"):
        table = imgstore_zarr.open(root).get_extra_data()
    assert table is not None
    np.testing.assert_array_equal(tree["extra/sensor_time"], table["sensor_time"])
    assert np.isnan(tree["extra/sensor_time"]).sum() == 3
    np.testing.assert_array_equal(tree["audio/right"], expected_audio(root, 1))


@pytest.mark.parametrize("dtype", ["<i2", ">f8", "u1", "bool", "i8"])
def test_samples_of_any_type(images: Path, dtype: str) -> None:
    for chunk in range(CHUNKS):
        samples = (np.arange(2 * AUDIO[chunk]).reshape(2, -1) % 200 - 50).astype(dtype)
        by_frames = (np.arange(2 * ROWS).reshape(2, -1) % 3).astype(dtype)
        datasets = {"audio": Dataset("a, b", samples, RATE), "daq": Dataset("c, d", by_frames)}
        write_chunk(images, chunk, datasets)
    tree = tree_of(images)
    native = np.dtype(dtype).newbyteorder("=")
    assert tree["audio/b"].dtype == tree["daq/d"].dtype == tree["extra/d"].dtype == native
    np.testing.assert_array_equal(tree["audio/b"], expected_audio(images, 1))
    np.testing.assert_array_equal(tree["daq/d"], expected_daq(images, 1)[0])
    np.testing.assert_array_equal(tree["extra/d"], expected_daq(images, 1)[0])


def test_chunks_of_several_types(images: Path) -> None:
    for chunk, dtype in enumerate(["i2", "f4", "u1"]):
        samples = np.arange(AUDIO[chunk]).astype(dtype)[None]
        write_chunk(images, chunk, {"audio": Dataset("a", samples, RATE)})
    found = tree_of(images)["audio/a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected_audio(images, 0))


def test_a_dataset_that_some_chunks_do_not_have(images: Path) -> None:
    write_chunk(images, 0, {"daq": daq(0)})
    write_chunk(images, 2, {"daq": daq(2), "audio": audio(2)})
    tree = tree_of(images)
    assert tree["audio"].sizes["sample"] == AUDIO[2]
    assert float(at(tree, "audio/time")[0]) == 1.7e9 + 200
    assert tree["daq"].sizes["sample"] == len(USED[0]) + len(USED[2])


def test_nothing_says_when_samples_were_taken(images: Path) -> None:
    for chunk in range(CHUNKS):
        write_chunk(images, chunk, {"audio": audio(chunk, rate=None)})
    group = tree_of(images).children["audio"]
    assert "time" not in group.coords
    assert "samplerate" not in group.attrs
    np.testing.assert_array_equal(group["left"], expected_audio(images, 0))


def test_a_chunk_whose_first_frame_is_not_known(root: Path) -> None:
    path = root / "000001.extra_data.h5"
    write_h5(path, {"daq": daq(1), "audio": audio(1)}, used=[], more=[("sensor_time", "<f4")])
    tree = tree_of(root)
    times = tree["audio/time"].to_numpy()
    unknown = np.isnan(times)
    assert np.flatnonzero(unknown).tolist() == list(range(AUDIO[0], AUDIO[0] + AUDIO[1]))
    np.testing.assert_array_equal(tree["audio/left"], expected_audio(root, 0))
    assert tree["daq"].sizes["sample"] == tree["extra"].sizes["record"] == ROWS + 4


def test_no_row_was_used(images: Path) -> None:
    for chunk in range(2):
        write_h5(images / f"{chunk:06d}.extra_data.h5", {"daq": daq(chunk)}, used=[])
    for tree in (tree_of(images), xr.open_datatree(images, engine="imgstore", chunks={})):
        assert set(tree.children) == {"daq"}
        assert tree["daq/volts"].to_numpy().shape == (0,)


NAMES = ["sample", "time", "channel", "a/b", "a_b", "x", "x", "time_", "record", "..", "°C"]


def test_names_that_something_else_has(images: Path) -> None:
    count = len(NAMES)
    samples = np.arange(count * 30.0).reshape(count, 30)
    by_frames = np.arange(count * ROWS).reshape(count, ROWS)
    datasets = {
        name: Dataset(",".join(NAMES), samples, RATE) for name in ("extra", "image", "time", "a/b")
    }
    datasets["a_b"] = Dataset(",".join(NAMES), by_frames)
    write_chunk(images, 0, datasets)
    with pytest.MonkeyPatch.context() as patch:
        # Bytes are ASCII, as Motif has them.
        patch.setattr(np, "bytes_", str)
        write_chunk(images, 0, datasets)
    tree = tree_of(images)
    assert set(tree.children) == {"extra", "extra_", "image_", "time_", "a_b_", "a_b"}
    expected = ["sample_", "time__", "channel_", "a_b_", "a_b", "x", "x_", "time_", "record"]
    for group in ("extra_", "image_", "time_", "a_b_"):
        assert list(tree[group].data_vars)[: len(expected)] == expected
        for name, values in zip(tree[group].data_vars, samples, strict=True):
            np.testing.assert_array_equal(tree[group].dataset[name], values)
    assert tree["a_b"].sizes["sample"] == ROWS
    # Where two columns are called the same, the table by frames has the later one.
    np.testing.assert_array_equal(tree["extra/x"], by_frames[6])
    np.testing.assert_array_equal(tree["extra/channel_"], by_frames[2])
    np.testing.assert_array_equal(tree["extra/record_"], by_frames[8])


def test_a_recording_that_lies_in_no_directory(root: Path) -> None:
    store = imgstore_zarr.open(zarr.storage.LocalStore(root, read_only=True))
    check_all(store.to_datatree(), root)


# What is read, and when.


def test_making_the_tree_opens_every_file_once_and_reads_no_samples(
    root: Path, counts: Counts
) -> None:
    tree = tree_of(root)
    assert sorted(counts.opened) == ["000000", "000001", "000002"]
    assert set(counts.read) == {"camera"}
    counts.clear()
    for group, dim in (("audio", "sample"), ("daq", "sample"), ("extra", "record")):
        repr(tree[group])
        dataset = tree.children[group].to_dataset()
        dataset._repr_html_()
        repr(dataset.isel({dim: slice(3, 5)}))
    repr(tree)
    assert tree["audio"].nbytes >= sum(AUDIO) * 16
    assert (counts.opened, counts.read) == ([], [])


@pytest.mark.parametrize(
    ("key", "chunks"),
    [
        (slice(10, 20), [0]),
        (slice(AUDIO[0], AUDIO[0] + 5), [1]),
        (slice(AUDIO[0] - 1, AUDIO[0] + 1), [0, 1]),
        (slice(5, 5), []),
        (-1, [2]),
        ([0, 900, 901, 0], [0, 1, 2]),
        (slice(None), [0, 1, 2]),
    ],
    ids=str,
)
def test_only_the_chunks_concerned_are_opened(
    root: Path, counts: Counts, key: Any, chunks: list[int]
) -> None:
    group = tree_of(root).children["audio"]
    expected, times = expected_audio(root, 1)[key], expected_times(root)[key]
    counts.clear()
    np.testing.assert_array_equal(group["right"].variable[key], expected)
    assert sorted(counts.opened) == [f"{chunk:06d}" for chunk in chunks]
    assert set(counts.read) <= {"audio"}
    counts.clear()
    # Times are computed.
    np.testing.assert_array_equal(group["time"].variable[key], times)
    assert counts.opened == []


def test_rows_by_frames_are_read_of_the_chunks_concerned(root: Path, counts: Counts) -> None:
    tree = tree_of(root)
    counts.clear()
    values, times = expected_daq(root, 0)
    counts.clear()
    np.testing.assert_array_equal(tree["daq/volts"].variable[9:11], values[9:11])
    np.testing.assert_array_equal(tree["extra/volts"].variable[9:11], values[9:11])
    np.testing.assert_array_equal(tree["daq/time"].variable[9:11], times[9:11])
    assert counts.opened == ["000001"] * 3


def test_samples_of_a_week_fill_no_memory() -> None:
    # 1512 chunks of 400 s at 48 kHz: 2.9e10 samples.
    class Week:
        dtypes: Mapping[str, np.dtype[Any]] = {"left": np.dtype("f4"), "right": np.dtype("i2")}
        lengths = np.full(1512, 400 * 48_000, np.int64)
        samplerate = 48_000.0
        timed = True

        def read(self, column: str, start: int, stop: int) -> NDArray[Any]:
            return np.arange(start, stop).astype(self.dtypes[column])

        def times(self, start: int, stop: int) -> NDArray[np.float64]:
            return np.arange(start, stop) / 48_000

    class Extra:
        def exists(self) -> bool:
            return True

        def files(self, extensions: Sequence[str] = ()) -> list[str]:
            return []

        def read(self, ignore_corrupt_chunks: bool = False) -> pd.DataFrame | None:
            raise AssertionError("the records are not read this way")

        def samplerate(self) -> float | None:
            return None

        def datasets(self) -> dict[str, Week]:
            return {"audio": Week()}

        def sampled(self) -> SampledData:
            return SampledData(Week(), self.datasets())

    assert isinstance(Extra(), HasSampledData)
    tree = to_datatree(gray()[1], Extra())
    repr(tree)
    count = 1512 * 400 * 48_000
    assert tree["audio"].sizes["sample"] == tree["extra"].sizes["record"] == count
    assert float(at(tree, "audio/time")[-1]) == (count - 1) / 48_000
    assert at(tree, "audio/left")[10**10 : 10**10 + 3].to_numpy().tolist() == [1e10] * 3
    assert at(tree, "extra/left")[[count - 1, 0]].record.to_numpy().tolist() == [count - 1, 0]
    for name in ("audio/left", "audio/right", "audio/time"):
        # Two blocks for each chunk, the same for all.
        assert at(tree, name).encoding["preferred_chunks"]["sample"] == (200 * 48_000,) * 3024


SAMPLES = np.random.default_rng(3).integers(0, 2**15, 60_000)


@given(st.lists(indexer(len(SAMPLES)), min_size=1, max_size=1))
@example([slice(None, None, -7)])
@example([slice(10, 5, -1)])
@example([slice(5, 10, -1)])
@example([slice(20_000, None, 3)])
@example([np.array([-1, 0, 59_999, 20_000, 20_001, 0])])
@example([np.array([], np.int64)])
@example([-60_000])
def test_selecting_samples(keys: list[Any]) -> None:
    (key,) = keys
    reads = []

    def read(start: int, stop: int) -> NDArray[Any]:
        assert 0 <= start <= stop <= len(SAMPLES)
        reads.append(stop - start)
        return SAMPLES[start:stop]

    array = SampledArray(read, len(SAMPLES), SAMPLES.dtype)
    lazy = xr.core.indexing.LazilyIndexedArray(array)
    variable = xr.Variable(("sample",), lazy, fastpath=True)
    np.testing.assert_array_equal(variable[key].to_numpy(), SAMPLES[key])
    if isinstance(key, int):
        assert reads == [1]


def test_samples_far_apart_are_read_one_by_one() -> None:
    reads: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> NDArray[Any]:
        reads.append((start, stop))
        return np.arange(start, stop)

    array = SampledArray(read, 10**10, np.dtype(np.int64))
    lazy = xr.core.indexing.LazilyIndexedArray(array)
    variable = xr.Variable(("sample",), lazy, fastpath=True)
    picked = [9 * 10**9, 5, 3, -1]
    assert variable[picked].to_numpy().tolist() == [9 * 10**9, 5, 3, 10**10 - 1]
    assert reads == [(3, 6), (9 * 10**9, 9 * 10**9 + 1), (10**10 - 1, 10**10)]
    reads.clear()
    # Those near each other together, in parts of bounded size.
    np.testing.assert_array_equal(variable[: 4 * 10**6 : 1000], np.arange(0, 4 * 10**6, 1000))
    assert len(reads) == 4
    assert max(stop - start for start, stop in reads) <= 2**20


# Blocks.


@given(st.lists(st.integers(0, 3 * BLOCK_BYTES // 8), max_size=12))
@example([])
@example([0, 0])
@example([BLOCK_BYTES // 8] * 3)
@example([BLOCK_BYTES // 8 + 1])
def test_blocks_are_chunks_or_parts_of_one(lengths: list[int]) -> None:
    blocks = block_lengths(lengths, 8)
    assert sum(blocks) == sum(lengths)
    assert max(blocks) * 8 <= BLOCK_BYTES
    if sum(lengths):
        assert min(blocks) > 0
    starts = {0, *itertools.accumulate(lengths)}
    for begin, length in zip([0, *itertools.accumulate(blocks)], blocks, strict=False):
        # No block has parts of two chunks.
        inside = [start for start in starts if begin < start < begin + length]
        assert not inside or {begin, begin + length} <= starts


@given(st.integers(1, 10**6), st.integers(0, 10**9))
@example(1512, 400 * 48_000)
def test_there_are_never_too_many_blocks(chunks: int, length: int) -> None:
    few = max(1, chunks // 1000)
    lengths = [length * (chunks // few)] * few
    assert len(block_lengths(lengths, 8)) <= MAX_BLOCKS + few


# Where it goes: threads, other processes.


def check_all(tree: xr.DataTree, root: Path) -> None:
    np.testing.assert_array_equal(tree["audio/right"], expected_audio(root, 1))
    np.testing.assert_array_equal(tree["daq/light"], expected_daq(root, 1)[0])
    np.testing.assert_array_equal(tree["extra/light"], expected_daq(root, 1)[0])


def test_several_threads(root: Path) -> None:
    tree = tree_of(root)
    expected = expected_audio(root, 0)
    starts = np.random.default_rng(0).integers(0, len(expected) - 200, 100).tolist()
    barrier = threading.Barrier(8)

    def work(places: list[int]) -> None:
        barrier.wait()
        for start in places:
            found = at(tree, "audio/left")[start : start + 200].to_numpy()
            np.testing.assert_array_equal(found, expected[start : start + 200])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [starts[i::8] for i in range(8)]))


@pytest.mark.parametrize("engine", [False, True])
def test_what_is_pickled_is_where_it_lies(images: Path, tmp_path: Path, engine: bool) -> None:
    for chunk in range(CHUNKS):
        samples = np.random.default_rng(chunk).normal(size=(2, 100_000))
        write_chunk(
            images, chunk, {"daq": daq(chunk), "audio": Dataset("left, right", samples, RATE)}
        )
    tree = xr.open_datatree(images, engine="imgstore") if engine else tree_of(images)
    data = pickle.dumps(tree)
    assert len(data) < 20_000
    check_all(pickle.loads(data), images)
    assert len(pickle.dumps(tree["audio/left"])) < 20_000
    (tmp_path / "tree.pickle").write_bytes(data)
    script = (
        "import pickle, sys; tree = pickle.load(open(sys.argv[1], 'rb'));"
        "print(repr(float(tree['audio/left'][100_003])), float(tree['audio/time'][100_003]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "tree.pickle")],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = expected_audio(images, 0)[100_003], expected_times(images)[100_003]
    assert [float(word) for word in done.stdout.split()] == list(expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process(root: Path) -> None:
    tree = tree_of(root)
    at(tree, "audio/left")[:3].to_numpy()
    expected = expected_audio(root, 0)
    child = os.fork()
    if child == 0:
        same = np.array_equal(tree["audio/left"].to_numpy(), expected)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(tree["audio/left"], expected)


# xarray's functions.


@pytest.mark.parametrize("engine", ["imgstore", None])
def test_open_datatree(root: Path, engine: str | None) -> None:
    with xr.open_datatree(root, engine=engine) as tree:
        xr.testing.assert_identical(tree, tree_of(root))
        check_all(tree, root)
        np.testing.assert_array_equal(at(tree, "image")[:, 0, 0], np.arange(6))


SEPARATES = pytest.mark.filterwarnings("ignore:The specified chunks separate")


@pytest.mark.parametrize(
    "chunks", [{}, "auto", -1, pytest.param({"sample": 100}, marks=SEPARATES)], ids=str
)
def test_open_datatree_in_blocks(root: Path, counts: Counts, chunks: Any) -> None:
    tree = xr.open_datatree(root, engine="imgstore", chunks=chunks)
    assert sorted(counts.opened) == ["000000", "000001", "000002"]
    assert set(counts.read) == {"camera"}
    for name in ("image", "audio/left", "audio/time", "daq/volts", "extra/volts"):
        assert tree[name].chunks is not None, name
    assert tree["audio"].to_dataset().chunks["sample"]
    with dask.config.set(scheduler="threads"):
        check_all(tree, root)
        np.testing.assert_array_equal(tree["audio/time"], expected_times(root))
        np.testing.assert_array_equal(at(tree, "image")[:, 0, 0], np.arange(6))
        left, right = together(at(tree, "audio/left"), at(tree, "audio/right"))
    np.testing.assert_array_equal(left, expected_audio(root, 0))
    np.testing.assert_array_equal(right, expected_audio(root, 1))


def test_blocks_of_a_tree_that_was_not_opened_in_blocks(root: Path) -> None:
    tree = tree_of(root).chunk({"sample": 100})
    left, right = together(at(tree, "audio/left"), at(tree, "audio/right"))
    np.testing.assert_array_equal(left, expected_audio(root, 0))
    np.testing.assert_array_equal(right, expected_audio(root, 1))


@pytest.mark.parametrize("engine", ["imgstore", None])
@pytest.mark.parametrize("chunks", [None, {}], ids=str)
def test_open_groups(root: Path, engine: str | None, chunks: Any) -> None:
    groups = xr.open_groups(root, engine=engine, chunks=chunks)
    assert set(groups) == {"/", "/extra", "/audio", "/daq"}
    np.testing.assert_array_equal(groups["/audio"]["left"], expected_audio(root, 0))
    for group in groups.values():
        group.close()


@pytest.mark.parametrize("format", ["raw/zarr", "npy/dir", "mjpeg/avi"])
@pytest.mark.parametrize("chunks", [None, {}, "auto"], ids=str)
def test_open_datatree_of_every_layout(record: Record, format: str, chunks: Any) -> None:
    images = np.zeros((6, 16, 16), np.uint8)
    # Dask finds no blocks for text where it is to find them itself.
    text = {} if chunks == "auto" else {"who": "a"}
    path = record(images, format=format, extra={0: {"volts": 1.5, **text}, 3: {"volts": 2.5}})
    with xr.open_datatree(path, chunks=chunks) as tree:
        assert tree["extra/volts"].to_numpy().tolist() == [1.5, 2.5]
        if text:
            assert tree["extra/who"].to_numpy()[0] == "a"
        assert tree["extra/frame_index"].to_numpy().tolist() == [0, 3]
        np.testing.assert_array_equal(tree["image"], images)


def closed_stores(patch: pytest.MonkeyPatch) -> list[str]:
    closed: list[str] = []
    close = imgstore_zarr.ImgStore.close

    def counting(store: imgstore_zarr.ImgStore, save_index: bool = False) -> None:
        closed.append(store.filename)
        close(store, save_index)

    patch.setattr(imgstore_zarr.ImgStore, "close", counting)
    return closed


@pytest.mark.parametrize("chunks", [None, {}], ids=str)
def test_closing_the_tree_closes_the_recording(
    root: Path, monkeypatch: pytest.MonkeyPatch, chunks: Any
) -> None:
    closed = closed_stores(monkeypatch)
    tree = xr.open_datatree(root, engine="imgstore", chunks=chunks)
    tree["image"].to_numpy()
    assert closed == []
    tree.close()
    assert closed == [str(root)]
    groups = xr.open_groups(root, engine="imgstore", chunks=chunks)
    groups["/"].close()
    assert closed == [str(root)] * 2


def test_no_file_stays_open(root: Path) -> None:
    tree = tree_of(root)
    tree["audio/left"].to_numpy()
    for path in files(root):
        # HDF5 refuses this for files that are open for reading in this process.
        h5py.File(path, "r+").close()


def test_a_tree_that_cannot_be_made_leaves_nothing_open(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(root)[1].write_bytes(b"no HDF5")
    closed = closed_stores(monkeypatch)
    with pytest.raises(CorruptChunkError, match=r"000001\.extra_data\.h5 of chunk 1 are damaged"):
        xr.open_datatree(root, engine="imgstore")
    assert closed == [str(root)]


@pytest.mark.parametrize("dropped", ["left", ["left", "image"]])
def test_variables_left_out(root: Path, dropped: Any) -> None:
    tree = xr.open_datatree(root, engine="imgstore", drop_variables=dropped)
    assert list(tree["audio"].data_vars) == ["right"]
    assert ("image" in tree.dataset) == (dropped == "left")


# Damage.


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (audio(1, rate=RATE + 1), r"samplerate of audio .*chunk 0 \(250.0 Hz\).*1 \(251.0 Hz\)"),
        (
            audio(1, rate=None),
            r"samplerate of audio .*chunk 0 \(250.0 Hz\) and of chunk 1 \(none\)",
        ),
        (audio(1, columns="left, up"), r"columns of audio .*0 \(left, right\).*1 \(left, up\)"),
        (
            Dataset("left, right", np.zeros((2, ROWS)), RATE),
            r"axis of audio .*0 \(its own\).*1 \(th",
        ),
    ],
    ids=["rate", "no rate", "columns", "by frames"],
)
def test_chunks_that_differ(root: Path, other: Dataset, told: str) -> None:
    write_chunk(root, 1, {"daq": daq(1), "audio": other})
    with pytest.raises(InvalidMetadataError, match=told):
        tree_of(root)


DAMAGES = ["garbage", "cut off", "no camera", "no delay", "short delay", "no names", "no dataset"]
DAMAGES += ["columns", "flat", "group", "rate", "no frame_time", "plain camera"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files(root: Path, damage: str) -> None:
    path = files(root)[1]
    if damage == "garbage":
        path.write_bytes(b"no HDF5")
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:1500])
    else:
        with h5py.File(path, "r+") as file:
            if damage in ("no camera", "no frame_time", "plain camera"):
                camera = file["camera"][:]
                del file["camera"]
                if damage == "no frame_time":
                    file["camera"] = camera[["frame_number", "frame_index"]].copy()
                elif damage == "plain camera":
                    file["camera"] = np.arange(ROWS)
            elif damage in ("no delay", "short delay"):
                del file["sample_delay"]
                if damage == "short delay":
                    file["sample_delay"] = np.zeros(3)
            elif damage == "no names":
                del file.attrs["datasets"]
            elif damage == "no dataset":
                del file["audio"]
            elif damage == "columns":
                file["audio"].attrs["column_names"] = "one"
            elif damage == "rate":
                file["audio"].attrs["samplerate"] = 0.0
            else:
                del file["audio"]
                if damage == "group":
                    file.create_group("audio")
                else:
                    file["audio"] = np.zeros(100)
                    file["audio"].attrs["column_names"] = "left"
    told = r"recording: the extra data 000001\.extra_data\.h5 of chunk 1 are damaged"
    with pytest.raises(CorruptChunkError, match=told):
        tree_of(root)


def test_a_delay_of_another_length_is_damage_for_the_table_too(root: Path) -> None:
    with h5py.File(files(root)[1], "r+") as file:
        del file["sample_delay"]
        file["sample_delay"] = np.zeros(3)
    store = imgstore_zarr.open(root)
    with (
        pytest.warns(UserWarning, match="audio"),
        pytest.raises(CorruptChunkError, match="chunk 1"),
    ):
        store.get_extra_data()


def test_samples_that_cannot_be_read(images: Path) -> None:
    for chunk in range(CHUNKS):
        path = write_chunk(images, chunk, {"audio": audio(chunk)})
        with h5py.File(path, "r+") as file:
            samples = file["audio"][:]
            attributes = dict(file["audio"].attrs)
            del file["audio"]
            file.create_dataset("audio", data=samples, chunks=(2, 100), fletcher32=True)
            file["audio"].attrs.update(attributes)
            place = file["audio"].id.get_chunk_info(0).byte_offset
        if chunk == 1:
            data = bytearray(path.read_bytes())
            data[place + 10] ^= 0xFF
            path.write_bytes(data)
    group = tree_of(images).children["audio"]
    np.testing.assert_array_equal(at(group, "left")[:500], expected_audio_of(files(images)[0]))
    np.testing.assert_array_equal(at(group, "left")[820:], expected_audio_of(files(images)[2]))
    with pytest.raises(CorruptChunkError, match=r"000001\.extra_data\.h5 of chunk 1 are damaged"):
        at(group, "left")[500:510].to_numpy()


def expected_audio_of(path: Path) -> NDArray[Any]:
    with h5py.File(path) as file:
        values: NDArray[Any] = file["audio"][0]
        return values


def test_files_that_may_not_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    tree = tree_of(root)
    monkeypatch.setattr(h5py, "File", refused)
    with pytest.raises(RecordingAccessError, match=r"reading 000000\.extra_data\.h5 was refused"):
        at(tree, "audio/left")[:10].to_numpy()


def test_files_that_changed_since(root: Path) -> None:
    tree = tree_of(root)
    daq_before = expected_daq(root, 0)[0]
    shorter = Dataset("left, right", np.zeros((2, 100), "f4"), RATE)
    write_chunk(root, 1, {"daq": daq(1), "audio": shorter})
    told = r"000001\.extra_data\.h5 of chunk 1 are damaged .*ends before sample 320"
    with pytest.raises(CorruptChunkError, match=told):
        tree["audio/left"].to_numpy()
    # One value is not spread over many.
    write_chunk(root, 1, {"daq": daq(1), "audio": Dataset("l, r", np.zeros((2, 1), "f4"), RATE)})
    with pytest.raises(CorruptChunkError, match="ends before"):
        at(tree, "audio/left")[500:510].to_numpy()
    other = Dataset("left, right", np.zeros((2, 320), "f8"), RATE)
    write_chunk(root, 1, {"daq": daq(1), "audio": other})
    with pytest.raises(CorruptChunkError, match="float64 where float32 was"):
        tree["audio/left"].to_numpy()
    # Rows that a writer filled since do not count.
    write_h5(root / "000002.extra_data.h5", {"daq": daq(2)}, used=range(ROWS))
    np.testing.assert_array_equal(tree["daq/volts"], daq_before)
    write_h5(root / "000002.extra_data.h5", {"daq": daq(2)}, used=range(2))
    with pytest.raises(CorruptChunkError, match="ends before"):
        tree["daq/volts"].to_numpy()
    files(root)[0].unlink()
    with pytest.raises(ChunkMissingError, match=r"000000\.extra_data\.h5 of chunk 0 are gone"):
        at(tree, "audio/left")[:10].to_numpy()
