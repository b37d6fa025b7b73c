"""What a recording looks like over time: rates, drops and intervals in bins, and its chunks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.index import Float64s, FrameIndex, Int64s

if TYPE_CHECKING:
    import pandas as pd

MAX_BINS = 1_000
"""Bins of a timeline."""

UNIX_TIMES = (631_152_000, 4_102_444_800)
"""A frame time outside of 1990 .. 2100 is no Unix time."""

_FRAMES_PER_BIN = 4
_LOW = np.uint64(2**32 - 1)
_INT64_MAX = np.iinfo(np.int64).max
_NAN = float("nan")

Bools = NDArray[np.bool_]
UInt64s = NDArray[np.uint64]


def _no_floats() -> Float64s:
    return np.empty(0)


def _no_integers() -> Int64s:
    return np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Timeline:
    """How a recording went over time: at most `MAX_BINS` bins of equal width.

    A bin holds the frames whose times are from its start to just before the next start; the last one
    holds the latest frame too. Frames whose times are not finite are in none.

    Attributes
    ----------
    start
        float64 (bin,), frame time at which each bin begins, in seconds.
    frames
        int64 (bin,), frames.
    dropped
        int64 (bin,), frame numbers that were skipped just before these frames, at most 2**63 - 1.
    interval
        float64 (bin,), median time to these frames from the ones before them in the recording, in
        seconds, where the frame numbers follow each other (if they do so nowhere: all); NaN where
        there is none.
    longest
        float64 (bin,), the longest of these times.
    width
        Of a bin, in seconds; 0 where all times are the same.
    """

    start: Float64s = field(default_factory=_no_floats)
    frames: Int64s = field(default_factory=_no_integers)
    dropped: Int64s = field(default_factory=_no_integers)
    interval: Float64s = field(default_factory=_no_floats)
    longest: Float64s = field(default_factory=_no_floats)
    width: float = 0.0

    def __len__(self) -> int:
        return len(self.start)

    @property
    def rate(self) -> Float64s:
        """float64 (bin,), frames per second; NaN where bins have no width."""
        if not self.width > 0:
            return np.full(len(self), _NAN)
        with np.errstate(over="ignore"):
            return self.frames / self.width

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row per bin: start, frames, dropped, interval, longest, rate."""
        import pandas as pd

        names = ("start", "frames", "dropped", "interval", "longest", "rate")
        return pd.DataFrame({name: getattr(self, name) for name in names})


@dataclass(frozen=True, eq=False)
class ChunkTimes:
    """Where the chunks of a recording begin, and when.

    Attributes
    ----------
    number
        int64 (chunk,), the number of each chunk on storage.
    position, frame_number
        int64 (chunk,), of its first frame.
    start, stop
        float64 (chunk,), its earliest and latest frame time, in seconds; NaN where none is finite.
    """

    number: Int64s = field(default_factory=_no_integers)
    position: Int64s = field(default_factory=_no_integers)
    frame_number: Int64s = field(default_factory=_no_integers)
    start: Float64s = field(default_factory=_no_floats)
    stop: Float64s = field(default_factory=_no_floats)


def timeline_of(
    time: Float64s, known: Bools, intervals: Float64s, after_gap: Int64s, missing: UInt64s
) -> Timeline:
    """Return the timeline of frame times (finite where `known`), of intervals, and of gaps."""
    positions = None if known.all() else np.flatnonzero(known)
    finite = time if positions is None else time[positions]
    if not len(finite):
        return Timeline()
    # Halves: the distance of the largest floats is none.
    first, last = float(finite.min()) / 2, float(finite.max()) / 2
    bins = max(1, min(MAX_BINS, len(finite) // _FRAMES_PER_BIN)) if last > first else 1
    start = np.linspace(first, last, bins, endpoint=False) * 2
    start[0] = finite.min()
    arrived = np.concatenate([[_NAN], intervals])
    if positions is not None:
        arrived = arrived[positions]
    if bool(np.all(finite[:-1] <= finite[1:])):
        bounds = np.append(np.searchsorted(finite, start), len(finite))
        bounds[0] = 0
    else:
        # Small integers are sorted in one pass.
        places = _bins(start, finite).astype(np.int16)
        arrived = arrived[np.argsort(places, kind="stable")]
        bounds = np.append(0, np.cumsum(np.bincount(places, minlength=bins)))
    median, longest = np.full(bins, _NAN), np.full(bins, _NAN)
    for i in range(bins):
        seconds = arrived[bounds[i] : bounds[i + 1]]
        seconds = seconds[np.isfinite(seconds)]
        if len(seconds):
            # Not their sum, which may be too large.
            median[i] = np.median(seconds / 2) * 2
            longest[i] = seconds.max()
    placed = known[after_gap]
    at = _bins(start, time[after_gap[placed]])
    return Timeline(
        start=start,
        frames=np.diff(bounds),
        dropped=_sums(at, missing[placed], bins),
        interval=median,
        longest=longest,
        width=(last - first) / bins * 2,
    )


def _bins(start: Float64s, time: Float64s) -> Int64s:
    """The bin of each time."""
    return np.maximum(np.searchsorted(start, time, side="right") - 1, 0)


def _sums(at: Int64s, values: UInt64s, bins: int) -> Int64s:
    """The sum of the values in each bin; the largest int64 where that is too small."""
    high, low = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    np.add.at(high, at, (values >> np.uint64(32)).astype(np.int64))
    np.add.at(low, at, (values & _LOW).astype(np.int64))
    high += low >> 32
    return np.where(high < 2**31, (high << 32) | (low & int(_LOW)), _INT64_MAX)


def chunk_times_of(index: FrameIndex, known: Bools) -> ChunkTimes:
    """Return where the chunks of an index lie in time; its times are finite where `known`."""
    starts = index.chunk_starts
    if not len(starts):
        return ChunkTimes()
    time = index.frame_time if known.all() else np.where(known, index.frame_time, _NAN)
    return ChunkTimes(
        number=index.chunk_numbers,
        position=starts,
        frame_number=index.frame_number[starts],
        start=np.fmin.reduceat(time, starts),
        stop=np.fmax.reduceat(time, starts),
    )


def span_of(chunks: ChunkTimes, chunk: int) -> tuple[float, float] | None:
    """Return the earliest and latest time of a chunk; of a missing one, between its neighbours."""
    rows = chunks.number == chunk
    before, after = chunks.number < chunk, chunks.number > chunk
    if rows.any():
        ends = [chunks.start[rows][0], chunks.stop[rows][0]]
    else:
        ends = [chunks.stop[before][chunks.number[before].argmax()]] if before.any() else []
        ends += [chunks.start[after][chunks.number[after].argmin()]] if after.any() else []
    known = [float(end) for end in ends if math.isfinite(end)]
    return (min(known), max(known)) if known else None


def exact_sum(values: UInt64s) -> int:
    """Return the sum of integers that together need more than 64 bits."""
    high, low = values >> np.uint64(32), values & _LOW
    return (int(high.sum()) << 32) + int(low.sum())
