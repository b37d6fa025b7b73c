"""Report: what the frame numbers and times of a recording say about how it went."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.index import Float64s, FrameIndex, Int64s
from imgstore_zarr.layouts import Inspects, Layout, Parts, Problem
from imgstore_zarr.recording import RecordingInfo
from imgstore_zarr.storage import Location

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_GAPS = 10_000
"""Gaps that a report lists: a camera that skips every second number has millions in a week."""

MAX_STEPS = 1_000
"""Steps of each kind that a report lists."""

MAX_BINS = 1_000
"""Bins of a timeline."""

_FRAMES_PER_BIN = 4
_SHOWN = 20
_LOW = np.uint64(2**32 - 1)
_INT64_MAX = np.iinfo(np.int64).max
_NAN = float("nan")

Bools = NDArray[np.bool_]
UInt64s = NDArray[np.uint64]
StepKind = Literal["repeat", "backward", "backward-time"]


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, in the plural where that is due."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@dataclass(frozen=True)
class Gap:
    """Frame numbers that were skipped.

    Attributes
    ----------
    position
        Of the first frame after the gap.
    after, before
        The frame numbers on both sides.
    missing
        How many frame numbers lie between them.
    seconds
        From the frame before the gap to the frame after it.
    frame_time
        Of the first frame after the gap, in seconds.
    """

    position: int
    after: int
    before: int
    missing: int
    seconds: float
    frame_time: float = _NAN


@dataclass(frozen=True)
class Step:
    """A frame that does not come after the one before it.

    Attributes
    ----------
    kind
        ``repeat``: the frame number of the frame before; ``backward``: a smaller one;
        ``backward-time``: an earlier frame time.
    position
        Of the frame.
    before
        The frame number of the frame before.
    frame_number, frame_time
        Of the frame.
    seconds
        From the frame before to the frame.
    """

    kind: StepKind
    position: int
    before: int
    frame_number: int
    seconds: float
    frame_time: float


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


@dataclass(frozen=True)
class Report:
    """What is to be said about a recording without looking at its pixels.

    Attributes
    ----------
    name, layout, format
        The recording.
    frame_count, chunk_count
        Frames and chunks in the index.
    duration
        From the earliest to the latest frame, in seconds.
    interval
        Median time from one frame to the next, in seconds; NaN with fewer than two frames.
    jitter
        Standard deviation of that time between frames whose numbers follow each other.
    longest_interval
        The longest of those times.
    gaps
        Where frame numbers were skipped: the first `MAX_GAPS` of them.
    gap_count
        How many there are.
    dropped
        Frame numbers skipped, in total.
    repeated, backward
        How often a frame number follows itself, or a larger one.
    backward_times
        How often a frame time is before the one that it follows.
    problems
        Chunks that are missing, and whatever else was noticed.
    steps
        Where frame numbers are repeated or go back, and where times go back: the first `MAX_STEPS` of
        each kind.
    timeline
        Rate, drops and intervals over time. Reports are compared without it.
    chunk_times
        Where the chunks lie in time. Reports are compared without it.
    """

    name: str
    layout: str
    format: str
    frame_count: int
    chunk_count: int
    duration: float
    interval: float
    jitter: float
    longest_interval: float
    gaps: tuple[Gap, ...]
    gap_count: int
    dropped: int
    repeated: int
    backward: int
    backward_times: int
    problems: tuple[Problem, ...]
    steps: tuple[Step, ...] = ()
    timeline: Timeline = field(default_factory=Timeline, repr=False, compare=False)
    chunk_times: ChunkTimes = field(default_factory=ChunkTimes, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether no problem was noticed. Gaps are facts about the camera, not problems."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON, but for the timeline and the chunk times.

        These are thousands of numbers, which `Timeline.to_dataframe` gives.
        """
        values = dataclasses.asdict(self)
        del values["timeline"], values["chunk_times"]
        return {**values, "ok": self.ok}

    def to_dataframe(self) -> pd.DataFrame:
        """Return one row for each gap, step and problem that is listed, by position.

        Returns
        -------
        DataFrame
            ``kind`` (``gap``, those of `Step` and those of `Problem`), ``position``, ``frame_number``
            and ``frame_time`` (seconds) of the frame after the gap or step, or of the first one of the
            chunk that has the problem, ``missing`` (frame numbers), ``seconds`` (from the frame
            before), ``chunk`` and ``message``. What is not known is NA, or NaN.
        """
        from imgstore_zarr.report_figure import to_dataframe

        return to_dataframe(self)

    def plot(
        self,
        extra: pd.DataFrame | None = None,
        fields: Sequence[str] | None = None,
        ax: Axes | None = None,
    ) -> Figure:
        """Draw the recording over time: frame intervals, gaps, chunks that are damaged, extra data.

        Parameters
        ----------
        extra
            Extra data to draw below, as `ImgStore.get_extra_data` returns them.
        fields
            The columns of `extra` to draw; by default the first four that hold numbers.
        ax
            Where to draw the frame intervals, without extra data; by default a figure is made.

        Returns
        -------
        matplotlib.figure.Figure
            Notebooks show it; ``savefig`` saves it. pyplot has no part in it.

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        ValueError
            A field that `extra` does not have as numbers, or extra data with `ax`.
        """
        from imgstore_zarr.report_figure import draw

        return draw(self, extra, fields, ax)

    def _repr_html_(self) -> str:
        from imgstore_zarr.report_figure import to_html

        return to_html(self)

    def __str__(self) -> str:
        rate = f", {1 / self.interval:.2f} frames/s" if self.interval > 0 else ""
        lines = [
            f"{self.name}: {self.format} ({self.layout} layout)",
            f"  {counted(self.frame_count, 'frame')} in {counted(self.chunk_count, 'chunk')}, "
            f"{self.duration:.3f} s{rate}",
        ]
        if self.frame_count > 1:
            lines.append(
                f"  interval {self.interval * 1e3:.3f} ms, jitter {self.jitter * 1e3:.3f} ms, "
                f"longest {self.longest_interval * 1e3:.3f} ms"
            )
        lines.append(
            f"  {counted(self.gap_count, 'gap')} with {counted(self.dropped, 'frame')} dropped, "
            f"{self.repeated} repeated, "
            f"{self.backward} going back; {self.backward_times} times going back"
        )
        lines += [
            f"  gap at position {gap.position}: {counted(gap.missing, 'frame')} after number "
            f"{gap.after}, {gap.seconds:.3f} s"
            for gap in self.gaps[:_SHOWN]
        ]
        if self.gap_count > _SHOWN:
            lines.append(f"  ... and {counted(self.gap_count - _SHOWN, 'more gap')}")
        lines += [f"  problem: {problem.message}" for problem in self.problems]
        return "\n".join(lines)


def make_report(
    info: RecordingInfo, index: FrameIndex, problems: tuple[Problem, ...] = ()
) -> Report:
    """Return the report of an index."""
    number, time = index.frame_number, index.frame_time
    # Neighbours as unsigned distances: an int64 difference can overflow.
    ahead, behind = number[1:] > number[:-1], number[1:] < number[:-1]
    distance = number[1:].view(np.uint64) - number[:-1].view(np.uint64)
    places = np.flatnonzero(ahead & (distance > 1))
    missing = distance[places] - np.uint64(1)
    known = np.isfinite(time)
    finite = time if known.all() else time[known]
    # Times that are not finite have no distance, and others one that is too large for a float.
    with np.errstate(invalid="ignore", over="ignore"):
        intervals = np.diff(time)
        follows = ahead & (distance == 1)
        steady = intervals[follows]
        jitter = float(np.std(steady)) if len(steady) else _NAN
        interval = float(np.median(intervals)) if len(intervals) else _NAN
        duration = float(finite.max() - finite.min()) if len(finite) else 0.0

    def moment(i: int) -> tuple[float, float]:
        return float(intervals[i]), float(time[i + 1])

    gaps = tuple(
        Gap(i + 1, int(number[i]), int(number[i + 1]), count, *moment(i))
        for i, count in zip(places[:MAX_GAPS].tolist(), missing[:MAX_GAPS].tolist(), strict=True)
    )
    odd: dict[StepKind, Int64s] = {
        "repeat": np.flatnonzero(distance == 0),
        "backward": np.flatnonzero(behind),
        "backward-time": np.flatnonzero(intervals < 0),
    }
    steps = tuple(
        Step(kind, i + 1, int(number[i]), int(number[i + 1]), *moment(i))
        for kind, found in odd.items()
        for i in found[:MAX_STEPS].tolist()
    )
    return Report(
        name=info.name,
        layout=info.layout,
        format=info.format,
        frame_count=len(index),
        chunk_count=len(index.chunk_starts),
        duration=duration,
        interval=interval,
        jitter=jitter,
        longest_interval=float(np.max(steady)) if len(steady) else _NAN,
        gaps=gaps,
        gap_count=len(places),
        dropped=_exact_sum(missing),
        repeated=len(odd["repeat"]),
        backward=len(odd["backward"]),
        backward_times=len(odd["backward-time"]),
        # What was noticed on opening may be noticed again when the files are looked into.
        problems=tuple(dict.fromkeys(problems)),
        steps=steps,
        timeline=_timeline(
            time, known, np.where(follows | ~follows.any(), intervals, _NAN), places + 1, missing
        ),
        chunk_times=_chunk_times(index, known),
    )


def _timeline(
    time: Float64s, known: Bools, intervals: Float64s, after_gap: Int64s, missing: UInt64s
) -> Timeline:
    """The timeline of frame times (finite where `known`), of intervals, and of gaps."""
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


def _chunk_times(index: FrameIndex, known: Bools) -> ChunkTimes:
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


def inspected_report(layout: Layout, location: Location, parts: Parts) -> Report:
    """Return the report of a recording, after a look into its files."""
    problems = parts.problems
    if isinstance(layout, Inspects):
        problems += layout.inspect(location, parts.index)
    return make_report(parts.info, parts.index, problems)


def with_problems(report: Report, problems: Iterable[Problem]) -> Report:
    """Return a report with more problems."""
    return dataclasses.replace(report, problems=tuple(dict.fromkeys((*report.problems, *problems))))


def damaged_report(name: str, layout: str, message: str) -> Report:
    """Return the report of a recording that is too damaged to be opened."""
    problem, nan = Problem("recording-damaged", message), _NAN
    return Report(name, layout, "unknown", 0, 0, 0.0, nan, nan, nan, (), 0, 0, 0, 0, 0, (problem,))


def _exact_sum(values: UInt64s) -> int:
    """The sum of integers that together need more than 64 bits."""
    high, low = values >> np.uint64(32), values & _LOW
    return (int(high.sum()) << 32) + int(low.sum())
