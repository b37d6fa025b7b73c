"""Frames: NumPy's own indexing of the same array says what is right."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from imgstore_zarr import Frames, Window
from imgstore_zarr.frames import ConvertedSource, output_array, window_shape
from imgstore_zarr.pixels import Conversion

GRAY = np.arange(7 * 5 * 6, dtype=np.uint16).reshape(7, 5, 6)
COLOR = np.arange(4 * 5 * 3 * 3, dtype=np.uint8).reshape(4, 5, 3, 3)


class CountingSource:
    """An array that remembers what was read of it."""

    def __init__(self, pixels: NDArray[Any]) -> None:
        self.pixels = pixels
        self.reads: list[tuple[list[int], Window | None]] = []
        self.closed = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.pixels.dtype

    @property
    def preferred_chunks(self) -> tuple[int, ...]:
        return (3, *self.pixels.shape[1:])

    def read(
        self,
        positions: NDArray[np.int64],
        window: Window | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        assert positions.dtype == np.int64
        assert positions.ndim == 1
        self.reads.append((positions.tolist(), window))
        block = self.pixels[positions]
        if window is not None:
            assert 0 <= window.y0 <= window.y1 <= self.shape[1]
            assert 0 <= window.x0 <= window.x1 <= self.shape[2]
            block = block[:, window.y0 : window.y1, window.x0 : window.x1]
        out = output_array(block.shape, self.dtype, out)
        out[...] = block
        return out

    def close(self) -> None:
        self.closed = True


def part(size: int) -> st.SearchStrategy[Any]:
    """An index into one axis."""
    places = st.integers(-size, size - 1)
    return st.one_of(
        places,
        places.map(np.int64),
        st.slices(size),
        st.builds(
            slice,
            st.none() | st.integers(-9, 9),
            st.none() | st.integers(-9, 9),
            st.none() | st.integers(-3, 3).filter(bool),
        ),
        st.lists(places, max_size=4),
        hnp.arrays(np.int64, hnp.array_shapes(max_dims=2, max_side=3), elements=places),
        hnp.arrays(np.uint8, st.integers(0, 4), elements=st.integers(0, size - 1)),
        hnp.arrays(bool, size),
    )


@st.composite
def keys(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    count = draw(st.integers(0, len(shape)))
    dots = draw(st.none() | st.integers(0, count))
    if dots is None:
        key = tuple(draw(part(size)) for size in shape[:count])
        return key[0] if len(key) == 1 and draw(st.booleans()) else key
    after = count - dots
    head = [draw(part(size)) for size in shape[:dots]]
    tail = [draw(part(size)) for size in shape[len(shape) - after :]]
    return (*head, ..., *tail)


def check(pixels: NDArray[Any], key: Any) -> None:
    source = CountingSource(pixels)
    try:
        expected = pixels[key]
    except IndexError:
        with pytest.raises(IndexError):
            Frames(source)[key]
        return
    result = Frames(source)[key]
    assert result.dtype == pixels.dtype
    assert result.shape == expected.shape
    np.testing.assert_array_equal(result, expected)
    ((positions, _),) = source.reads
    assert positions == sorted(set(positions))


@given(keys(GRAY.shape))
@example((slice(None, None, -2), slice(4, None, -1), slice(-1, 0, -3)))
@example(([[0, 1], [2, 3]], [1], [[5], [0]]))
@example((0, ..., [1, 1]))
@example((..., 0))
@example(([], ..., []))
def test_gray_is_indexed_as_numpy_does(key: Any) -> None:
    check(GRAY, key)


@given(keys(COLOR.shape))
@example((..., 2))
@example((..., slice(1, 3)))
@example((..., slice(None, None, -1)))
@example((..., [2, 1]))
@example(([0, 3], slice(1, 3), slice(None), [2, 1]))
@example((0, 1, 2, 1))
@example((..., np.array([False, True, False])))
def test_color_is_indexed_as_numpy_does(key: Any) -> None:
    check(COLOR, key)


def runs(size: int) -> st.SearchStrategy[slice]:
    """Slices that select something."""

    def run(ends: list[int], step: int) -> slice:
        low, high = sorted(ends)
        return (
            slice(low, high + 1, step) if step > 0 else slice(high, low - 1 if low else None, step)
        )

    ends = st.lists(st.integers(0, size - 1), min_size=2, max_size=2)
    return st.builds(run, ends, st.sampled_from([-3, -2, -1, 1, 2, 3]))


@given(st.lists(st.integers(-7, 6), min_size=1, max_size=6), runs(5), runs(6))
def test_only_what_is_asked_for_is_read(frames: list[int], y: slice, x: slice) -> None:
    rows, columns = range(5)[y], range(6)[x]
    source = CountingSource(GRAY)
    Frames(source)[frames, y, x]
    window = Window(min(rows), max(rows) + 1, min(columns), max(columns) + 1)
    whole = window == (0, 5, 0, 6)
    assert source.reads == [(sorted({frame % 7 for frame in frames}), None if whole else window)]


@pytest.mark.parametrize(
    ("key", "positions"),
    [
        (3, [3]),
        (-1, [6]),
        (slice(1, 6, 2), [1, 3, 5]),
        (slice(6, 1, -2), [2, 4, 6]),
        ([5, 5, 0], [0, 5]),
        (slice(0, 0), []),
    ],
)
def test_only_the_frames_asked_for_are_read(key: Any, positions: list[int]) -> None:
    source = CountingSource(GRAY)
    Frames(source)[key]
    assert source.reads == [(positions, None)]


def test_scattered_pixels_read_the_rectangle_around_them() -> None:
    source = CountingSource(GRAY)
    Frames(source)[2, [4, 1], [3, 2]]
    assert source.reads == [([2], Window(1, 5, 2, 4))]


@pytest.mark.parametrize("position", [7, -8, 99, np.int64(99)])
def test_a_position_beyond_the_end(position: int) -> None:
    frames = Frames(CountingSource(GRAY))
    text = rf"index {int(position)} is out of bounds for axis 0 of size 7"
    for key in (position, (position,), (position, 0, 0)):
        with pytest.raises(IndexError, match=text):
            _ = frames[key]
    with pytest.raises(IndexError, match="is out of bounds for axis 0 of size 7"):
        _ = frames[[position]]


@pytest.mark.parametrize(
    "key",
    [
        7,
        -8,
        2**64 - 1,
        2**70,
        [0, 7],
        np.array([2**64 - 1], np.uint64),
        (0, 5),
        (0, 0, -7),
        (0, 0, 0, 0),
        (..., ...),
        None,
        (slice(None), None),
        1.0,
        [0.5],
        "0",
        True,
        np.ones(6, bool),
        np.ones((7, 5), bool),
        ([0, 1], [0, 1, 2]),
    ],
    ids=repr,
)
def test_indexes_that_mean_nothing(key: Any) -> None:
    with pytest.raises(IndexError):
        Frames(CountingSource(GRAY))[key]


def test_a_step_of_zero() -> None:
    with pytest.raises(ValueError, match="zero"):
        Frames(CountingSource(GRAY))[::0]


def test_a_part_of_a_block_does_not_keep_it_alive() -> None:
    frames = Frames(CountingSource(COLOR))
    assert frames[..., 0].base is None
    assert frames[[0, 1], ..., 0, 0].base is None


def test_frames_look_like_an_array() -> None:
    source = CountingSource(COLOR)
    frames = Frames(source)
    assert frames.shape == COLOR.shape
    assert frames.dtype == COLOR.dtype
    assert (frames.ndim, frames.size, frames.nbytes) == (COLOR.ndim, COLOR.size, COLOR.nbytes)
    assert len(frames) == len(COLOR)
    assert frames.source is source
    assert "(4, 5, 3, 3) uint8" in repr(frames)
    assert source.reads == []
    np.testing.assert_array_equal(np.asarray(frames), COLOR)
    converted = np.asarray(frames, np.float32)
    assert converted.dtype == np.float32
    with pytest.raises(ValueError, match="copy"):
        frames.__array__(copy=False)


def test_the_size_of_a_week_does_not_overflow() -> None:
    class Week(CountingSource):
        shape = (2**40, 2**20, 2**20)

    assert Frames(Week(GRAY)).nbytes == 2**81


def test_iteration_reads_one_frame_at_a_time() -> None:
    source = CountingSource(GRAY)
    for seen, frame in enumerate(Frames(source)):
        np.testing.assert_array_equal(frame, GRAY[seen])
        assert len(source.reads) == seen + 1
    assert seen == 6


def test_output_arrays_are_checked() -> None:
    shape, dtype = (2, 3), np.dtype(np.uint8)
    assert output_array(shape, dtype, None).shape == shape
    given = np.empty(shape, dtype)
    assert output_array(shape, dtype, given) is given
    for wrong in (np.empty((3, 2), dtype), np.empty(shape, np.int8), np.empty((3, 2), dtype).T):
        with pytest.raises(ValueError, match="needed is"):
            output_array(shape, dtype, wrong)
    assert window_shape((9, 5, 6, 3), 2, None) == (2, 5, 6, 3)
    assert window_shape((9, 5, 6, 3), 2, Window(1, 3, 2, 6)) == (2, 2, 4, 3)


BAYER = np.random.default_rng(1).integers(0, 256, (6, 8, 10), np.uint8)
BGR = np.random.default_rng(2).integers(0, 256, (5, 6, 7, 3), np.uint8)


@pytest.mark.parametrize(
    ("stored", "conversion", "code"),
    [
        (BAYER, Conversion("decode", "cv_bayerrg"), cv2.COLOR_BayerRG2BGR),
        (BAYER, Conversion("color"), cv2.COLOR_GRAY2BGR),
        (BGR, Conversion("gray"), cv2.COLOR_BGR2GRAY),
        # Planar: a third of the rows holds the chroma.
        (
            np.random.default_rng(3).integers(0, 256, (4, 12, 6), np.uint8),
            Conversion("decode", "cv_yuv_i420"),
            cv2.COLOR_YUV2BGR_I420,
        ),
        (BAYER.astype(np.uint16) * 257, Conversion("decode", "cv_bayergb"), cv2.COLOR_BayerGB2BGR),
    ],
    ids=["bayer", "color", "gray", "planar", "bayer16"],
)
def test_converted_frames_are_those_of_opencv(
    stored: NDArray[Any], conversion: Conversion, code: int
) -> None:
    expected = np.stack([cv2.cvtColor(image, code) for image in stored])
    inner = CountingSource(stored)
    source = ConvertedSource(inner, conversion)
    assert source.shape == expected.shape
    assert source.dtype == expected.dtype
    assert source.preferred_chunks == (3, *expected.shape[1:])
    assert inner.reads == []
    frames = Frames(source)
    np.testing.assert_array_equal(frames[...], expected)
    np.testing.assert_array_equal(frames[[2, 0, 2], 1:4, 2:], expected[[2, 0, 2], 1:4, 2:])
    np.testing.assert_array_equal(frames[1, ::-1, 3], expected[1, ::-1, 3])
    out = np.empty((2, *expected.shape[1:]), expected.dtype)
    assert source.read(np.array([3, 1]), None, out) is out
    np.testing.assert_array_equal(out, expected[[3, 1]])
    source.close()
    assert inner.closed


def test_conversion_reads_no_other_frames() -> None:
    inner = CountingSource(BAYER)
    Frames(ConvertedSource(inner, Conversion("color")))[[4, 1]]
    assert sorted(p for positions, _ in inner.reads for p in positions) == [1, 4]
    assert math.prod(Frames(ConvertedSource(inner, Conversion("color"))).shape) == 6 * 8 * 10 * 3
