"""Report: what the frame numbers and times of a recording say about how it went."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.index import FrameIndex
from imgstore_zarr.layouts import Inspects, Layout, Parts, Problem
from imgstore_zarr.recording import RecordingInfo
from imgstore_zarr.storage import Location

MAX_GAPS = 10_000
"""Gaps that a report lists: a camera that skips every second number has millions in a week."""

_SHOWN = 20


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
    """

    position: int
    after: int
    before: int
    missing: int
    seconds: float


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

    @property
    def ok(self) -> bool:
        """Whether no problem was noticed. Gaps are facts about the camera, not problems."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {**dataclasses.asdict(self), "ok": self.ok}

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
    steps = number[1:].view(np.uint64) - number[:-1].view(np.uint64)
    places = np.flatnonzero(ahead & (steps > 1))
    # Times that are not finite have no distance, and others one that is too large for a float.
    with np.errstate(invalid="ignore", over="ignore"):
        intervals = np.diff(time)
        steady = intervals[ahead & (steps == 1)]
        jitter = float(np.std(steady)) if len(steady) else float("nan")
    finite = time[np.isfinite(time)]
    gaps = tuple(
        Gap(int(i) + 1, int(number[i]), int(number[i + 1]), int(steps[i]) - 1, float(intervals[i]))
        for i in places[:MAX_GAPS]
    )
    return Report(
        name=info.name,
        layout=info.layout,
        format=info.format,
        frame_count=len(index),
        chunk_count=len(index.chunk_starts),
        duration=float(finite.max() - finite.min()) if len(finite) else 0.0,
        interval=float(np.median(intervals)) if len(intervals) else float("nan"),
        jitter=jitter,
        longest_interval=float(np.max(steady)) if len(steady) else float("nan"),
        gaps=gaps,
        gap_count=len(places),
        dropped=_exact_sum(steps[places] - np.uint64(1)),
        repeated=int(np.count_nonzero(steps == 0)),
        backward=int(np.count_nonzero(behind)),
        backward_times=int(np.count_nonzero(intervals < 0)),
        # What was noticed on opening may be noticed again when the files are looked into.
        problems=tuple(dict.fromkeys(problems)),
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
    nan = float("nan")
    problem = Problem("recording-damaged", message)
    return Report(name, layout, "unknown", 0, 0, 0.0, nan, nan, nan, (), 0, 0, 0, 0, 0, (problem,))


def _exact_sum(values: NDArray[np.uint64]) -> int:
    """The sum of integers that together need more than 64 bits."""
    high, low = values >> np.uint64(32), values & np.uint64(2**32 - 1)
    return (int(high.sum()) << 32) + int(low.sum())
