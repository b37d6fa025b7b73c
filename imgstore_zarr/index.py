"""FrameIndex: which frame is where.

Immutable columns and look-ups in O(log n). Opening a recording of a week builds one of these, so
nothing here loops over frames in Python.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imgstore_zarr.cached import cached_property
from imgstore_zarr.errors import InvalidMetadataError

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]

_Scalar = TypeVar("_Scalar", bound=np.generic)

_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True)
class ChunkSpan:
    """One chunk: its number, and the positions it holds as a half-open range."""

    number: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class _Column:
    """Look-ups in one column, by bisection in a sorted order that is built when first needed.

    NaN cannot be found and is left out.
    """

    def __init__(self, values: Int64s | Float64s) -> None:
        self._values = values

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.generic], Int64s | None]:
        """Ascending values, and their positions (None: the values themselves are ascending)."""
        values = self._values
        if bool(np.all(values[:-1] <= values[1:])) and not np.isnan(values[-1:]).any():
            return values, None
        positions = np.argsort(values, kind="stable")
        count = len(values) - int(np.count_nonzero(np.isnan(values)))
        positions = positions[:count]
        return values[positions], positions

    def _position(self, rank: int) -> int:
        positions = self._sorted[1]
        return rank if positions is None else int(positions[rank])

    def first(self, value: float) -> int | None:
        """The first position that holds exactly this value."""
        ordered = self._sorted[0]
        key = ordered.dtype.type(value)
        rank = int(np.searchsorted(ordered, key))
        if rank == len(ordered) or ordered[rank] != key:
            return None
        return self._position(rank)

    def nearest(self, value: float) -> int | None:
        """The position whose value is nearest; on a tie the first in recording order."""
        ordered = self._sorted[0]
        if not len(ordered) or value != value:
            return None
        integers = ordered.dtype.kind == "i"
        key = ordered.dtype.type(math.floor(value) if integers else value)
        above = int(np.searchsorted(ordered, key, side="right"))
        candidates = []
        if above < len(ordered):
            candidates.append(above)
        if above > 0:
            candidates.append(int(np.searchsorted(ordered, ordered[above - 1])))
        # Exact arithmetic, since int64 differences overflow and float64 ones round.
        return min(
            (_distance(ordered[rank].item(), value), self._position(rank)) for rank in candidates
        )[1]

    def range(self, start: float, stop: float) -> Int64s:
        """The positions with start <= value < stop, in recording order."""
        ordered, positions = self._sorted
        if not start < stop:
            return np.empty(0, np.int64)
        low, high = np.searchsorted(ordered, np.array([start, stop], ordered.dtype))
        if positions is None:
            return np.arange(low, high, dtype=np.int64)
        return np.sort(positions[low:high])


def _plain(value: float) -> float:
    """A NumPy scalar as a Python number, whose arithmetic is exact."""
    return value.item() if isinstance(value, np.generic) else value


def _distance(a: float, b: float) -> Fraction | float:
    if np.isinf(a) or np.isinf(b):
        return 0.0 if a == b else np.inf
    return abs(Fraction(a) - Fraction(b))


class FrameIndex:
    """Immutable columns of a recording: frame numbers, frame times, and where each chunk starts.

    Parameters
    ----------
    frame_number
        int64 (frame,), the camera's numbers. May start anywhere, skip, repeat, go back.
    frame_time
        float64 (frame,), seconds.
    chunk_starts
        int64 (chunk,), the position of the first frame of each chunk, ascending from 0.
    chunk_numbers
        int64 (chunk,), the number each chunk has on storage; by default 0, 1, 2, ...

    Raises
    ------
    InvalidMetadataError
        Columns that do not fit each other.

    Notes
    -----
    Where a number or time occurs more than once, the first in recording order is found.
    """

    def __init__(
        self,
        frame_number: ArrayLike,
        frame_time: ArrayLike,
        chunk_starts: ArrayLike = (0,),
        chunk_numbers: ArrayLike | None = None,
    ) -> None:
        self._number = _column(frame_number, np.int64, "frame_number")
        self._time = _column(frame_time, np.float64, "frame_time")
        count = len(self._number)
        starts = _column(chunk_starts, np.int64, "chunk_starts")
        if chunk_numbers is None:
            chunk_numbers = np.arange(len(starts))
        numbers = _column(chunk_numbers, np.int64, "chunk_numbers")
        if not count:
            starts, numbers = starts[:0], numbers[:0]
        if len(self._time) != count:
            raise InvalidMetadataError(
                f"the index has {count} frame numbers and {len(self._time)} frame times"
            )
        if len(numbers) != len(starts):
            raise InvalidMetadataError(
                f"the index has {len(starts)} chunks and {len(numbers)} chunk numbers"
            )
        if count and (
            not len(starts)
            or starts[0] != 0
            or starts[-1] >= count
            or bool(np.any(np.diff(starts) <= 0))
        ):
            raise InvalidMetadataError(
                "chunks must start at 0, ascend, hold at least one frame each, and end "
                f"before position {count}"
            )
        self._starts = starts
        self._chunk_numbers = numbers
        self._by_number = _Column(self._number)
        self._by_time = _Column(self._time)

    @property
    def frame_number(self) -> Int64s:
        """int64 (frame,), read-only."""
        return self._number

    @property
    def frame_time(self) -> Float64s:
        """float64 (frame,), seconds, read-only."""
        return self._time

    @property
    def chunk_starts(self) -> Int64s:
        """int64 (chunk,), the first position of each chunk, read-only."""
        return self._starts

    @property
    def chunk_numbers(self) -> Int64s:
        """int64 (chunk,), the number of each chunk on storage, read-only."""
        return self._chunk_numbers

    def __reduce__(self) -> tuple[Any, ...]:
        # Without what was sorted for look-ups, and read-only again when it comes back.
        columns = (self._number, self._time, self._starts, self._chunk_numbers)
        return FrameIndex, tuple(np.asarray(column) for column in columns)

    def __len__(self) -> int:
        return len(self._number)

    def __repr__(self) -> str:
        return f"<FrameIndex of {len(self)} frames in {len(self._starts)} chunks>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FrameIndex):
            return NotImplemented
        return (
            np.array_equal(self._number, other._number)
            and np.array_equal(self._time, other._time, equal_nan=True)
            and np.array_equal(self._starts, other._starts)
            and np.array_equal(self._chunk_numbers, other._chunk_numbers)
        )

    __hash__ = None  # type: ignore[assignment]

    def position_of_number(self, frame_number: float) -> int | None:
        """Return the first position with this frame number, or None."""
        frame_number = _plain(frame_number)
        if not len(self) or not _INT64.min <= frame_number <= _INT64.max:
            return None
        value = int(frame_number)
        return self._by_number.first(value) if value == frame_number else None

    def position_nearest_number(self, frame_number: float) -> int | None:
        """Return the position of the nearest frame number, or None in an empty recording.

        On a tie, the first in recording order.
        """
        return self._by_number.nearest(min(max(_plain(frame_number), _INT64.min), _INT64.max))

    def position_of_time(self, frame_time: float) -> int | None:
        """Return the first position with exactly this frame time, or None."""
        return self._by_time.first(float(frame_time)) if len(self) else None

    def position_nearest_time(self, frame_time: float) -> int | None:
        """Return the position of the nearest frame time, or None in an empty recording.

        On a tie, the first in recording order.
        """
        return self._by_time.nearest(float(frame_time))

    def positions_between_times(self, start: float, stop: float) -> Int64s:
        """Return the positions with start <= frame_time < stop, in recording order."""
        return self._by_time.range(float(start), float(stop))

    def chunk_at(self, position: int) -> tuple[int, int]:
        """Return the number of the chunk that holds a position, and the place within the chunk.

        Raises
        ------
        IndexError
            No such position.
        """
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} is outside 0 .. {len(self) - 1}")
        i = int(np.searchsorted(self._starts, np.int64(position), side="right")) - 1
        return int(self._chunk_numbers[i]), position - int(self._starts[i])

    @property
    def chunk_stops(self) -> Int64s:
        """int64 (chunk,), one past the last position of each chunk."""
        return np.append(self._starts[1:], len(self)).astype(np.int64)[: len(self._starts)]

    def chunks(self) -> Iterator[ChunkSpan]:
        """Iterate over the chunks in recording order."""
        spans = zip(self._chunk_numbers, self._starts, self.chunk_stops, strict=True)
        for number, start, stop in spans:
            yield ChunkSpan(int(number), int(start), int(stop))

    def chunk(self, number: int) -> ChunkSpan:
        """Return the chunk of a number.

        Raises
        ------
        KeyError
            No such chunk.
        """
        found = np.flatnonzero(self._chunk_numbers == number)
        if not len(found):
            raise KeyError(number)
        i = int(found[0])
        return ChunkSpan(number, int(self._starts[i]), int(self.chunk_stops[i]))

    def with_numbers(self, frame_number: Sequence[int] | Int64s) -> FrameIndex:
        """Return a copy with other frame numbers."""
        return FrameIndex(frame_number, self._time, self._starts, self._chunk_numbers)

    def with_times(self, frame_time: Sequence[float] | Float64s) -> FrameIndex:
        """Return the same index with other frame times."""
        return FrameIndex(self._number, frame_time, self._starts, self._chunk_numbers)

    def numbered_from_zero(self) -> Int64s | None:
        """Return the numbers, those before the one frame 0 as -n .. -1; None if it is not one."""
        zeros = np.flatnonzero(self._number == 0)
        if len(zeros) != 1:
            return None
        return np.concatenate([np.arange(-zeros[0], 0), self._number[zeros[0] :]])


def _column(values: ArrayLike, dtype: type[_Scalar], name: str) -> NDArray[_Scalar]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.can_cast(array.dtype, dtype, "same_kind")):
        raise InvalidMetadataError(
            f"the column {name} has shape {array.shape} and dtype {array.dtype}; "
            f"it must be one-dimensional and fit {np.dtype(dtype)}"
        )
    if dtype is np.int64 and array.dtype.kind == "u" and array.size and array.max() > _INT64.max:
        raise InvalidMetadataError(
            f"the column {name} holds {array.max()}, more than 64-bit integers"
        )
    column = np.ascontiguousarray(array, dtype)
    if column is values or column.base is not None:
        column = column.view()
    column.flags.writeable = False
    return column
