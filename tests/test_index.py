"""FrameIndex against plain loops in exact arithmetic."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imgstore_zarr import ChunkSpan, FrameIndex, InvalidMetadataError

LOWEST, HIGHEST = -(2**63), 2**63 - 1

# Small numbers make repeats, ties and gaps likely.
numbers = st.one_of(
    st.integers(-6, 6),
    st.integers(LOWEST, HIGHEST),
    st.sampled_from([LOWEST, LOWEST + 1, -(2**53) - 1, 2**53 + 1, HIGHEST - 1, HIGHEST]),
)
number_columns = st.lists(numbers, max_size=30) | st.lists(numbers, max_size=30).map(sorted)
number_keys = st.one_of(
    numbers,
    numbers.map(np.int64),
    st.floats(-8, 8).map(lambda x: round(x * 2) / 2),
    st.floats(-8, 8, width=32).map(np.float32),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [2.0**63, -(2.0**63), np.float64(2.0**63), np.uint64(2**64 - 1), 2**64, -(2**70)]
    ),
)
times = st.one_of(
    st.integers(-12, 12).map(lambda x: x / 4),
    st.floats(allow_nan=False, allow_infinity=False),
)
time_columns = st.one_of(
    st.lists(times, max_size=30),
    st.lists(times, max_size=30).map(sorted),
    st.lists(times | st.just(math.nan), max_size=30),
)


def exact(value: Any) -> Fraction:
    return Fraction(value.item() if isinstance(value, np.generic) else value)


def first_equal(values: Sequence[float], key: Any) -> int | None:
    for position, value in enumerate(values):
        if not math.isnan(value) and exact(value) == exact(key):
            return position
    return None


def first_nearest(values: Sequence[float], key: Any) -> int | None:
    best: tuple[Fraction, int] | None = None
    for position, value in enumerate(values):
        if math.isnan(value):
            continue
        distance = abs(exact(value) - exact(key))
        if best is None or distance < best[0]:
            best = distance, position
    return None if best is None else best[1]


def of_numbers(column: list[int]) -> FrameIndex:
    return FrameIndex(column, [float(i) for i in range(len(column))])


def of_times(column: list[float]) -> FrameIndex:
    return FrameIndex(np.arange(len(column)), column)


@given(number_columns, number_keys)
@example([LOWEST, 5, HIGHEST], np.int64(HIGHEST))
@example([HIGHEST, LOWEST], -1)
@example([HIGHEST, LOWEST], np.int64(0))
@example([3, 1, 3, 1], 2)
@example([1, 2], np.float32(1.5))
@example([0, HIGHEST], np.float64(2.0**63))
def test_numbers_are_found_as_by_a_loop(column: list[int], key: Any) -> None:
    index = of_numbers(column)
    assert index.position_of_number(key) == first_equal(column, key)
    assert index.position_nearest_number(key) == first_nearest(column, key)


@given(number_columns.filter(bool), st.data())
def test_every_number_that_is_there_is_found(column: list[int], data: st.DataObject) -> None:
    index = of_numbers(column)
    key = data.draw(st.sampled_from(column))
    assert index.position_of_number(key) == column.index(key)
    scalar: Any = np.int64(key)
    assert index.position_of_number(scalar) == column.index(key)
    assert index.position_nearest_number(key) == column.index(key)


@given(time_columns, times)
@example([1.0, 3.0, 1.0], 2.0)
@example([1e308, -1e308], 0.0)
@example([0.1, 0.1 + 2**-55], 0.1)
@example([math.nan], 1.0)
@example([1.0, 2.0, math.nan], 9.0)
def test_times_are_found_as_by_a_loop(column: list[float], key: float) -> None:
    index = of_times(column)
    assert index.position_of_time(key) == first_equal(column, key)
    assert index.position_nearest_time(key) == first_nearest(column, key)


@given(time_columns, times | st.just(math.nan), times | st.just(math.nan))
@example([1.0, 2.0], 2.0, 1.0)
@example([1.0, 2.0], 0.0, math.nan)
@example([2.0, 1.0, math.nan], 0.0, math.nan)
@example([2.0, 1.0, math.nan], -math.inf, math.inf)
def test_positions_between_times(column: list[float], start: float, stop: float) -> None:
    expected = [i for i, time in enumerate(column) if start <= time < stop]
    found = of_times(column).positions_between_times(start, stop)
    assert found.dtype == np.int64
    assert found.tolist() == expected


def test_the_first_wins_on_repeats_and_ties() -> None:
    index = FrameIndex([7, 5, 7, 5, 9], [3.0, 1.0, 3.0, 1.0, 5.0])
    assert index.position_of_number(7) == 0
    assert index.position_of_number(5) == 1
    assert index.position_nearest_number(6) == 0
    assert index.position_nearest_number(8) == 0
    assert index.position_of_time(1.0) == 1
    assert index.position_nearest_time(2.0) == 0
    assert index.position_nearest_time(4.0) == 0


def test_keys_that_no_number_has() -> None:
    index = of_numbers([1, 2, 3])
    assert index.position_of_number(1.5) is None
    assert index.position_of_number(math.nan) is None
    assert index.position_of_number(math.inf) is None
    assert index.position_of_number(-math.inf) is None
    assert index.position_of_number(2.0) == 1
    assert index.position_nearest_number(math.nan) is None
    assert index.position_nearest_number(math.inf) == 2
    assert index.position_nearest_number(-math.inf) == 0


def test_keys_that_no_time_has() -> None:
    index = of_times([1.0, math.nan, 3.0])
    assert index.position_of_time(math.nan) is None
    assert index.position_nearest_time(math.nan) is None
    assert index.position_nearest_time(math.inf) == 2
    assert index.position_nearest_time(-math.inf) == 0
    assert of_times([1.0, math.inf]).position_of_time(math.inf) == 1
    assert of_times([1.0, math.inf]).position_nearest_time(1e300) == 0
    assert of_times([math.nan, math.nan]).position_nearest_time(1.0) is None


def test_an_empty_index() -> None:
    index = FrameIndex([], [])
    assert len(index) == 0
    assert index.position_of_number(0) is None
    assert index.position_nearest_number(0) is None
    assert index.position_of_time(0.0) is None
    assert index.position_nearest_time(0.0) is None
    assert index.positions_between_times(-1.0, 1.0).tolist() == []
    assert list(index.chunks()) == []
    assert index.chunk_numbers.tolist() == index.chunk_stops.tolist() == []
    with pytest.raises(IndexError):
        index.chunk_at(0)


@st.composite
def chunked(draw: st.DrawFn) -> tuple[FrameIndex, list[tuple[int, int]]]:
    """An index, and per position its chunk and place."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    named = draw(
        st.lists(st.integers(0, 10**6), min_size=len(lengths), max_size=len(lengths), unique=True)
    )
    places = [(n, i) for n, length in zip(named, lengths, strict=True) for i in range(length)]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return FrameIndex(np.arange(len(places)), np.zeros(len(places)), starts, named), places


@given(chunked())
def test_chunks(case: tuple[FrameIndex, list[tuple[int, int]]]) -> None:
    index, places = case
    assert [index.chunk_at(position) for position in range(len(places))] == places
    spans = list(index.chunks())
    assert [(s.number, i) for s in spans for i in range(len(s))] == places
    assert [p for s in spans for p in range(s.start, s.stop)] == list(range(len(places)))
    assert index.chunk_stops.tolist() == [s.stop for s in spans]
    assert index.chunk_starts.tolist() == [s.start for s in spans]
    for span in spans:
        assert index.chunk(span.number) == span
    for outside in (-1, len(places), 2**62):
        with pytest.raises(IndexError, match=str(outside)):
            index.chunk_at(outside)
    with pytest.raises(KeyError):
        index.chunk(10**6 + 1)


def test_chunks_are_numbered_from_zero_unless_told() -> None:
    assert list(FrameIndex([4, 5, 6], [0, 1, 2], [0, 2]).chunks()) == [
        ChunkSpan(0, 0, 2),
        ChunkSpan(1, 2, 3),
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FrameIndex([1, 2], [0.0]), "2 frame numbers and 1 frame times"),
        (lambda: FrameIndex([1, 2], [0.0, 1.0], [0, 1], [3]), "2 chunks and 1 chunk numbers"),
        (lambda: FrameIndex([1, 2], [0.0, 1.0], [1]), "start at 0"),
        (lambda: FrameIndex([1, 2], [0.0, 1.0], [0, 0]), "at least one frame"),
        (lambda: FrameIndex([1, 2, 3], np.zeros(3), [0, 2, 1]), "ascend"),
        (lambda: FrameIndex([1, 2], [0.0, 1.0], [0, 2]), "before position 2"),
        (lambda: FrameIndex([1, 2], [0.0, 1.0], []), "start at 0"),
        (lambda: FrameIndex([1.5, 2.5], [0.0, 1.0]), "frame_number"),
        (lambda: FrameIndex(["a"], [0.0]), "frame_number"),
        (lambda: FrameIndex([[1], [2]], [0.0, 1.0]), "frame_number"),
        (lambda: FrameIndex([1], [1j]), "frame_time"),
        (lambda: FrameIndex([1], 0.0), "frame_time"),
        (lambda: FrameIndex(np.array([2**63], np.uint64), [0.0]), "frame_number"),
        (lambda: FrameIndex([2**63], [0.0]), "frame_number"),
    ],
)
def test_columns_that_do_not_fit(make: Callable[[], FrameIndex], message: str) -> None:
    with pytest.raises(InvalidMetadataError, match=message):
        make()


def test_columns_are_converted() -> None:
    index = FrameIndex(np.array([1, 2], np.uint16), np.array([0, 1], np.int32))
    assert index.frame_number.dtype == np.int64
    assert index.frame_time.dtype == np.float64
    unsigned = FrameIndex(np.array([HIGHEST], np.uint64), [0.0])
    assert unsigned.frame_number.tolist() == [HIGHEST]


def test_columns_cannot_be_written() -> None:
    number, time = np.arange(3), np.arange(3.0)
    index = FrameIndex(number, time, np.array([0, 1]))
    columns = (index.frame_number, index.frame_time, index.chunk_starts, index.chunk_numbers)
    for column in columns:
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1
    # The caller's arrays stay as they were.
    assert number.flags.writeable
    assert time.flags.writeable
    with pytest.raises(AttributeError):
        index.frame_number = number  # type: ignore[misc]
    with pytest.raises(TypeError):
        hash(index)


def test_equality_and_pickling() -> None:
    index = FrameIndex([3, 1], [0.0, math.nan], [0, 1], [4, 7])
    assert index.position_of_number(1) == 1
    again = pickle.loads(pickle.dumps(index))
    assert again == index
    assert again.position_of_number(1) == 1
    assert index != FrameIndex([3, 2], [0.0, math.nan], [0, 1], [4, 7])
    assert index != FrameIndex([3, 1], [0.0, 1.0], [0, 1], [4, 7])
    assert index != FrameIndex([3, 1], [0.0, math.nan], [0], [4])
    assert index != FrameIndex([3, 1], [0.0, math.nan], [0, 1], [4, 8])
    assert index != "index"


def test_with_numbers_changes_nothing_else() -> None:
    index = FrameIndex([3, 1, 2], [0.0, 1.0, 2.0], [0, 1], [4, 7])
    other = index.with_numbers([-1, 0, 1])
    assert other.frame_number.tolist() == [-1, 0, 1]
    assert other.position_of_number(0) == 1
    assert index.position_of_number(1) == 1
    assert list(other.chunks()) == list(index.chunks())
    np.testing.assert_array_equal(other.frame_time, index.frame_time)
