"""Report: what the frame numbers and times of a recording say about how it went."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from imgstore_zarr.index import FrameIndex, Int64s
from imgstore_zarr.layouts import Inspects, Layout, Parts, Problem
from imgstore_zarr.recording import RecordingInfo
from imgstore_zarr.storage import Location
from imgstore_zarr.timeline import ChunkTimes, Timeline, chunk_times_of, exact_sum, timeline_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_GAPS = 10_000
"""Gaps that a report lists: a camera that skips every second number has millions in a week."""

MAX_STEPS = 1_000
"""Steps of each kind that a report lists."""

_SHOWN = 20
_NAN = float("nan")

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
        from imgstore_zarr.report_table import to_dataframe

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
        from imgstore_zarr.report_table import to_html

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
        dropped=exact_sum(missing),
        repeated=len(odd["repeat"]),
        backward=len(odd["backward"]),
        backward_times=len(odd["backward-time"]),
        # What was noticed on opening may be noticed again when the files are looked into.
        problems=tuple(dict.fromkeys(problems)),
        steps=steps,
        timeline=timeline_of(
            time, known, np.where(follows | ~follows.any(), intervals, _NAN), places + 1, missing
        ),
        chunk_times=chunk_times_of(index, known),
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
