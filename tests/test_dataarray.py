"""Recordings as DataArrays: lazy, and equal to NumPy's own array."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from imgstore_zarr import FrameIndex, Window
from imgstore_zarr.dataarray import BLOCK_BYTES, MAX_BLOCKS, block_lengths, datetimes, to_dataarray
from imgstore_zarr.frames import output_array

COUNT = 23
GRAY = np.random.default_rng(0).integers(0, 2**16, (COUNT, 5, 6), np.uint16)
COLOR = np.random.default_rng(1).integers(0, 256, (COUNT, 5, 6, 3), np.uint8)
INDEX = FrameIndex(
    np.arange(COUNT) * 3 - 7, 1e9 + np.arange(COUNT) / 4, [0, 8, 16], chunk_numbers=[0, 1, 3]
)


class CountingSource:
    """An array that remembers which frames were read of it, and is pickled without them."""

    def __init__(self, pixels: NDArray[Any], unit: int = 8) -> None:
        self.pixels = pixels
        self.unit = unit
        self.read_positions: list[int] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"unit": self.unit, "place": id(self.pixels)}

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.pixels.dtype

    @property
    def preferred_chunks(self) -> tuple[int, ...]:
        return (self.unit, *self.shape[1:])

    def read(
        self,
        positions: NDArray[np.int64],
        window: Window | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        self.read_positions += positions.tolist()
        block = self.pixels[positions]
        if window is not None:
            block = block[(slice(None), *window.slices)]
        out = output_array(block.shape, self.dtype, out)
        out[...] = block
        return out

    def close(self) -> None:
        pass


def gray(**options: Any) -> tuple[CountingSource, xr.DataArray]:
    source = CountingSource(GRAY)
    return source, to_dataarray(source, INDEX, attributes={"recording": "r"}, **options)


def color(**options: Any) -> tuple[CountingSource, xr.DataArray]:
    source = CountingSource(COLOR)
    return source, to_dataarray(source, INDEX, attributes={}, **options)


def test_dimensions_coordinates_and_attributes() -> None:
    source, array = gray()
    assert array.name == "image"
    assert array.dims == ("frame", "y", "x")
    assert array.shape == GRAY.shape
    assert array.dtype == np.uint16
    assert array.attrs == {"recording": "r"}
    assert set(array.coords) == {"frame_number", "frame_time"}
    assert array.frame_number.dims == array.frame_time.dims == ("frame",)
    assert array.frame_number.dtype == np.int64
    assert array.frame_time.dtype == np.float64
    assert array.frame_time.attrs == {"units": "s"}
    np.testing.assert_array_equal(array.frame_number, np.arange(COUNT) * 3 - 7)
    np.testing.assert_array_equal(array.frame_time, 1e9 + np.arange(COUNT) / 4)
    assert source.read_positions == []


def test_color_has_a_named_channel() -> None:
    source, array = color()
    assert array.dims == ("frame", "y", "x", "channel")
    assert array.channel.to_numpy().tolist() == ["b", "g", "r"]
    assert source.read_positions == []
    np.testing.assert_array_equal(array.sel(channel="r")[4].values, COLOR[4, ..., 2])


def test_other_channels_have_no_names() -> None:
    source = CountingSource(np.zeros((COUNT, 5, 6, 2), np.uint8))
    array = to_dataarray(source, INDEX, attributes={})
    assert array.dims == ("frame", "y", "x", "channel")
    assert "channel" not in array.coords


@pytest.mark.parametrize("chunks", [None, "auto", 8, {"frame": 16}], ids=str)
def test_nothing_is_read_before_values_are_asked_for(chunks: Any) -> None:
    source, array = gray(chunks=chunks, by="frame_number", datetime=True)
    part = array.isel(frame=slice(8, 12), y=slice(1, 3)).isel(x=2)
    repr(array)
    array._repr_html_()  # type: ignore[no-untyped-call]
    array.to_dataset()
    assert array.nbytes == GRAY.nbytes
    assert part.shape == (4, 2)
    assert source.read_positions == []
    np.testing.assert_array_equal(part.values, GRAY[8:12, 1:3, 2])
    blocks = {8: range(8, 16), 16: range(16)}
    size = chunks["frame"] if isinstance(chunks, dict) else chunks
    assert sorted(set(source.read_positions)) == [8, 9, 10, 11]
    assert set(source.read_positions) <= {*blocks.get(size, range(COUNT))}


def test_without_dask_nothing_more_is_read_than_asked_for() -> None:
    source, array = gray()
    assert array.chunks is None
    np.testing.assert_array_equal(array.isel(frame=[20, 3, 3]).values, GRAY[[20, 3, 3]])
    assert sorted(source.read_positions) == [3, 20]


def indexer(size: int) -> st.SearchStrategy[Any]:
    places = st.integers(-size, size - 1)
    arrays = st.lists(places, max_size=5).map(lambda x: np.array(x, np.int64))
    return st.one_of(places, st.slices(size), arrays)


def outer(pixels: NDArray[Any], key: tuple[Any, ...]) -> NDArray[Any]:
    """Index every axis for itself, the last one first so that the others keep their places."""
    for axis in reversed(range(len(key))):
        pixels = pixels[(slice(None),) * axis + (key[axis],)]
    return pixels


@given(st.tuples(indexer(COUNT), indexer(5), indexer(6)))
@example((slice(None, None, -3), -1, np.array([5, 0, 0])))
@example((np.array([-1, 0]), np.array([-2, 4]), slice(None, None, -1)))
@example((np.array([], np.int64), 2, np.array([], np.int64)))
def test_isel_on_gray(key: tuple[Any, ...]) -> None:
    _, array = gray()
    selected = array.isel(dict(zip(("frame", "y", "x"), key, strict=True)))
    np.testing.assert_array_equal(selected.values, outer(GRAY, key))
    numbers = INDEX.frame_number[key[0]]
    np.testing.assert_array_equal(selected.frame_number, numbers)


@given(st.tuples(indexer(COUNT), indexer(5), indexer(6), indexer(3)))
@example((3, slice(1, 4), 2, 2))
@example((slice(2, 5), slice(None), slice(None), slice(1, 3)))
@example((np.array([4, 2]), 0, np.array([1, 1]), np.array([-1, 1])))
def test_isel_on_color(key: tuple[Any, ...]) -> None:
    _, array = color()
    selected = array.isel(dict(zip(("frame", "y", "x", "channel"), key, strict=True)))
    np.testing.assert_array_equal(selected.values, outer(COLOR, key))


@given(indexer(COUNT), st.data())
def test_isel_step_by_step(first: Any, data: st.DataObject) -> None:
    expected = GRAY[first]
    _, array = gray()
    selected = array.isel(frame=first)
    if expected.ndim == 3 and len(expected):
        second = data.draw(indexer(len(expected)))
        selected, expected = selected.isel(frame=second), expected[second]
    np.testing.assert_array_equal(selected.values, expected)


def test_pointwise_selection() -> None:
    _, array = color()
    places = [[3, 1, 22], [0, 4, 2], [5, 5, 0]]
    key = {d: xr.DataArray(p, dims="p") for d, p in zip(("frame", "y", "x"), places, strict=True)}
    np.testing.assert_array_equal(array.isel(key).values, COLOR[tuple(places)])


def test_a_mask_of_frames() -> None:
    _, array = gray()
    mask = INDEX.frame_number % 2 == 0
    np.testing.assert_array_equal(array[mask].values, GRAY[mask])


@pytest.mark.parametrize(
    ("chunks", "frames"),
    [
        ("auto", (23,)),
        # Blocks never cross the start of a chunk when a chunk is longer than a block.
        (8, (8, 8, 7)),
        (16, (16, 7)),
        (10, (8, 8, 7)),
        (np.int64(10), (8, 8, 7)),
        ({"frame": 8}, (8, 8, 7)),
        ({"frame": "auto"}, (23,)),
        ({}, (23,)),
        ({"frame": -1}, (23,)),
    ],
    ids=str,
)
def test_dask_blocks(chunks: Any, frames: tuple[int, ...]) -> None:
    source, array = gray(chunks=chunks)
    assert array.chunks == (frames, (5,), (6,))
    with dask.config.set(scheduler="threads"):
        np.testing.assert_array_equal(array.values, GRAY)
    assert sorted(source.read_positions) == list(range(COUNT))


@pytest.mark.parametrize(
    ("chunks", "frames", "better"),
    [(4, (4, 4, 4, 4, 4, 3), 8), ({"frame": (20, 3)}, (20, 3), 16), ((12, 11), (12, 11), 16)],
    ids=str,
)
def test_blocks_that_cut_a_shard_are_warned_of(
    chunks: Any, frames: tuple[int, ...], better: int
) -> None:
    with pytest.warns(
        UserWarning, match=rf"cut .* 8 frames .* better is chunks=.*: {better}}}"
    ) as told:
        source, array = gray(chunks=chunks)
    assert len(told) == 1
    assert array.chunks == (frames, (5,), (6,))
    with dask.config.set(scheduler="threads"):
        np.testing.assert_array_equal(array.values, GRAY)
    assert sorted(source.read_positions) == list(range(COUNT))


def test_tiles_are_read_by_themselves() -> None:
    class Tiles(CountingSource):
        tile = (3, 4)

    with pytest.warns(UserWarning, match="blocks of 2 along y cut tiles of images, 3 pixels long"):
        to_dataarray(Tiles(GRAY), INDEX, attributes={}, chunks={"y": 2})
    to_dataarray(Tiles(GRAY), INDEX, attributes={}, chunks={"frame": 8, "y": 3, "x": 4})


def test_dask_blocks_of_part_of_an_image() -> None:
    said = r"along . cut images, . pixels long, .* several blocks"
    with pytest.warns(UserWarning, match=said) as told:
        _, array = color(chunks={"frame": 8, "y": 3, "x": 4})
    assert len(told) == 2
    assert array.chunks == ((8, 8, 7), (3, 2), (4, 2), (3,))
    with dask.config.set(scheduler="threads"):
        np.testing.assert_array_equal(array.values, COLOR)
        mean = np.asarray(array.astype("f8").mean("frame"))
    np.testing.assert_allclose(mean, COLOR.mean(axis=0))


def test_dask_reads_only_the_blocks_it_needs() -> None:
    source, array = gray(chunks=8)
    with dask.config.set(scheduler="threads"):
        np.testing.assert_array_equal(array.isel(frame=slice(9, 20, 5)).values, GRAY[9:20:5])
    assert set(source.read_positions) <= set(range(8, 23))


@pytest.mark.parametrize("chunks", [{"time": 3}, {"frame": 2, "z": 1}], ids=str)
def test_blocks_along_no_dimension(chunks: Mapping[str, int]) -> None:
    with pytest.raises(ValueError, match=r"the dimensions are \('frame', 'y', 'x'\)"):
        gray(chunks=chunks)


@pytest.mark.parametrize(
    "chunks",
    ["foo", 0, -2, 2.5, True, {"frame": "foo"}, {"y": 0}, {"frame": (20, 4)}, {"x": (7, -1)}, b"x"],
    ids=str,
)
def test_blocks_that_cannot_be(chunks: Any) -> None:
    axis = next(iter(chunks)) if isinstance(chunks, dict) else "frame"
    with pytest.raises(ValueError, match=f"chunks along {axis} cannot be .*give 'auto', a number"):
        gray(chunks=chunks)


@pytest.mark.parametrize("by", ["foo", "frame", 3])
def test_a_coordinate_that_cannot_be_looked_up(by: Any) -> None:
    with pytest.raises(ValueError, match=f"'frame_number', 'frame_time' or None, not {by!r}"):
        gray(by=by)


def test_the_graph_holds_no_frames() -> None:
    images = np.zeros((400, 64, 64), np.uint16)
    index = FrameIndex(np.arange(400), np.arange(400.0), np.arange(0, 400, 8))
    array = to_dataarray(CountingSource(images), index, attributes={}, chunks=8)
    graph = dict(array.data.__dask_graph__())
    assert len(graph) >= 50
    assert len(pickle.dumps(graph)) < images.nbytes / 50


def test_two_recordings_do_not_share_a_graph() -> None:
    first = to_dataarray(CountingSource(GRAY), INDEX, attributes={}, chunks=8)
    second = to_dataarray(CountingSource(GRAY // 2 + 1), INDEX, attributes={}, chunks=8)
    with dask.config.set(scheduler="threads"):
        difference = (second.astype("i8") - first // 2).to_numpy()
    assert (difference == 1).all()


def test_selecting_by_number() -> None:
    source, array = gray(by="frame_number")
    number = int(INDEX.frame_number[9])
    np.testing.assert_array_equal(array.sel(frame_number=number).values, GRAY[9])
    np.testing.assert_array_equal(
        array.sel(frame_number=number + 1, method="nearest").values, GRAY[9]
    )
    np.testing.assert_array_equal(
        array.sel(frame_number=slice(number, number + 7)).values, GRAY[9:12]
    )
    with pytest.raises(KeyError):
        array.sel(frame_number=number + 1)
    assert set(source.read_positions) == {9, 10, 11}


def test_selecting_by_time() -> None:
    _, array = gray(by="frame_time")
    np.testing.assert_array_equal(array.sel(frame_time=1e9 + 2.5).values, GRAY[10])
    np.testing.assert_array_equal(
        array.sel(frame_time=1e9 + 2.6, method="nearest").values, GRAY[10]
    )
    np.testing.assert_array_equal(
        array.sel(frame_time=[1e9 - 50, 1e9 + 2.4, 2e9], method="nearest").values,
        GRAY[[0, 10, 22]],
    )


def test_dates() -> None:
    _, array = gray(datetime=True)
    assert array.time.dims == ("frame",)
    assert array.time.dtype == np.dtype("M8[ns]")
    np.testing.assert_array_equal(
        array.time, pd.to_datetime(INDEX.frame_time, unit="s").to_numpy("M8[ns]")
    )
    _, without = gray()
    assert "time" not in without.coords


@given(st.lists(st.floats(-9.2e9, 9.2e9), max_size=10))
@example([1709210096.123456, 0.1, -0.1, -1e-9, 1e-10])
def test_dates_are_exact_to_the_nanosecond(times: list[float]) -> None:
    found = datetimes(np.array(times, np.float64)).view(np.int64).tolist()
    for nanoseconds, time in zip(found, times, strict=True):
        # In its last half, rounding may go either way.
        assert abs(nanoseconds - Fraction(time) * 10**9) <= Fraction(1, 2) + Fraction(1, 10**6)


@given(st.lists(st.floats(0, 4e9), min_size=1, max_size=10))
def test_dates_are_those_of_pandas(times: list[float]) -> None:
    expected = pd.to_datetime(np.array(times), unit="s").to_numpy("M8[ns]").view(np.int64)
    found = datetimes(np.array(times)).view(np.int64)
    assert int(np.abs(found - expected).max()) <= 1


def test_times_that_are_no_dates() -> None:
    stamps = datetimes(np.array([math.nan, 0.0, math.inf, -math.inf]))
    assert np.isnat(stamps).tolist() == [True, False, True, True]
    with pytest.raises(ValueError, match="datetime=False"):
        datetimes(np.array([0.0, 1.7e12]))


# Blocks.


@st.composite
def indexes(draw: st.DrawFn) -> FrameIndex:
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=12))
    starts = [0, *itertools.accumulate(lengths)][:-1]
    return FrameIndex(np.arange(sum(lengths)), np.zeros(sum(lengths)), starts)


@given(indexes(), st.integers(1, 70), st.integers(1, 70))
@example(FrameIndex(np.arange(100), np.zeros(100), [0, 50]), 7, 20)
@example(FrameIndex(np.arange(100), np.zeros(100), [0, 50]), 7, 3)
def test_blocks_begin_where_reading_can_begin(index: FrameIndex, unit: int, frames: int) -> None:
    lengths = block_lengths(index, unit, 1000, frames)
    assert sum(lengths) == len(index)
    assert min(lengths) > 0
    chunk_starts = index.chunk_starts.tolist()
    chunk_length = dict(zip(chunk_starts, np.diff([*chunk_starts, len(index)]), strict=True))
    begins = [0, *itertools.accumulate(lengths)][:-1]
    for begin, length in zip(begins, lengths, strict=True):
        chunk = max(start for start in chunk_starts if start <= begin)
        span = int(chunk_length[chunk])
        if begin != chunk:
            # A chunk is only cut when it is longer than a block.
            assert span > frames
            if unit < span:
                assert (begin - chunk) % unit == 0
        # A block is larger than asked for only where that is the unit.
        assert length <= max(frames, unit if unit < span else 0)
        # Whole chunks are put together, parts of them are not.
        if begin + length not in (*chunk_starts, len(index)):
            assert begin + length < chunk + span


@given(indexes(), st.integers(1, 70), st.integers(1, 2**28))
def test_blocks_have_about_the_default_size(index: FrameIndex, unit: int, frame_bytes: int) -> None:
    lengths = block_lengths(index, unit, frame_bytes)
    assert sum(lengths) == len(index)
    assert max(lengths) * frame_bytes <= max(BLOCK_BYTES, unit * frame_bytes, frame_bytes)


@given(
    st.integers(1, 4_000_000),
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.sampled_from([2**10, 2**20, 2**27, 2**30]),
)
@example(MAX_BLOCKS, 1, 1, 2**30)
@example(MAX_BLOCKS + 1, 1, 1, 2**30)
@example(3 * MAX_BLOCKS, 2, 1, 2**30)
def test_there_are_never_too_many_blocks(
    total: int, chunksize: int, unit: int, frame_bytes: int
) -> None:
    assume(total // chunksize < 200_000)
    index = FrameIndex(
        np.broadcast_to(np.int64(0), total),
        np.broadcast_to(np.float64(0), total),
        np.arange(0, total, chunksize),
    )
    lengths = block_lengths(index, unit, frame_bytes)
    assert sum(lengths) == total
    assert len(lengths) <= MAX_BLOCKS


@pytest.mark.parametrize("unit", [1, 25, 64, 250, 10_000])
def test_a_week_has_few_blocks(unit: int) -> None:
    total, chunks = 15_120_000, 1512
    index = FrameIndex(
        np.arange(total), np.arange(total) / 25, np.arange(0, total, total // chunks)
    )
    lengths = block_lengths(index, unit, 2**20)
    assert sum(lengths) == total
    assert len(lengths) <= 20_000


def test_an_empty_recording_has_one_block_of_nothing() -> None:
    assert block_lengths(FrameIndex([], []), 8, 1000) == (0,)
    source = CountingSource(GRAY[:0])
    for chunks in (None, "auto", 4):
        array = to_dataarray(source, FrameIndex([], []), attributes={}, chunks=chunks)
        assert array.shape == (0, 5, 6)
        assert np.asarray(array).shape == (0, 5, 6)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
    st.data(),
    st.integers(1, 40),
)
def test_blocks_begin_at_entries(spans: list[int], data: st.DataObject, target: int) -> None:
    """In chunks that are longer than a block; GOPs that are far too long are cut."""
    places = [
        np.array(sorted({0, *data.draw(st.sets(st.integers(0, span - 1)))}), np.int64)
        for span in spans
    ]
    starts = np.cumsum([0, *spans[:-1]])
    total = sum(spans)
    index = FrameIndex(np.arange(total), np.arange(float(total)), starts)
    lengths = block_lengths(index, 1, 1, target, places.__getitem__)
    assert sum(lengths) == total
    bounds = np.cumsum([0, *lengths]).tolist()
    entries = {int(s + p) for s, own in zip(starts, places, strict=True) for p in own} | {total}
    for start, stop in itertools.pairwise(bounds):
        inside = [entry for entry in entries if start < entry < stop]
        if stop in entries:
            # As many whole GOPs as fit, or one that does not.
            assert stop - start <= target or not inside
        else:
            assert stop - start == target
            assert min(entry for entry in entries if entry > start) - start > 8 * target
