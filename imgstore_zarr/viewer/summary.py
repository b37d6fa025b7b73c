"""What the timeline of the page shows: a recording in as many bins as the screen has columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.index import Float64s, Int64s
from imgstore_zarr.timeline import span_of
from imgstore_zarr.viewer.viewed import Viewed

MOST_BINS = 4_096
"""Bins of one summary."""

MOST_MARKS = 200
"""Gaps, chunks and problems of one summary: of more gaps the largest."""


def bounds_of(viewed: Viewed, start: float, stop: float, bins: int) -> tuple[Float64s, Int64s]:
    """Return where bins begin and end on the axis, and the first position of each and one past the last.

    Returns
    -------
    edges
        float64 (bins + 1,), seconds or positions.
    bounds
        int64 (bins + 1,), positions, ascending.
    """
    edges = np.linspace(start, stop, bins + 1)
    count = len(viewed.index)
    if viewed.axis == "position":
        return edges, np.clip(np.ceil(edges), 0, count).astype(np.int64)
    times = viewed.index.frame_time
    bounds = np.searchsorted(times, edges)
    bounds[-1] = np.searchsorted(times, stop, side="right")
    return edges, bounds


def summary(viewed: Viewed, start: float | None, stop: float | None, bins: int) -> dict[str, Any]:
    """Return a part of a recording for the timeline.

    Parameters
    ----------
    viewed
        The recording.
    start, stop
        Which part, in seconds or positions as its axis says; None is from, or to, the end.
    bins
        How many, at most `MOST_BINS`.
    """
    whole = extent(viewed)
    start = whole[0] if start is None else start
    stop = whole[1] if stop is None else stop
    if not start < stop:
        stop = start + 1
    _, bounds = bounds_of(viewed, start, stop, bins)
    gaps = viewed.gaps
    total = np.concatenate([[0.0], np.cumsum(gaps.missing)])
    dropped = np.diff(total[np.searchsorted(gaps.position, bounds)])
    report = viewed.report
    return {
        "axis": viewed.axis,
        "extent": whole,
        "start": start,
        "stop": stop,
        "position": bounds[:-1].tolist(),
        "frames": np.diff(bounds).tolist(),
        "dropped": dropped.tolist(),
        "gaps": _gaps(viewed, int(bounds[0]), int(bounds[-1])),
        "gap_count": len(gaps.position),
        "dropped_count": float(total[-1]),
        "chunks": _chunks(viewed, int(bounds[0]), int(bounds[-1])),
        "problems": _problems(viewed),
        "inspected": report is not None,
    }


def extent(viewed: Viewed) -> tuple[float, float]:
    """Return from where to where the axis goes."""
    count = len(viewed.index)
    if viewed.axis == "position":
        return 0.0, float(max(count - 1, 1))
    times = viewed.index.frame_time
    return float(times[0]), float(times[-1])


def _on_axis(viewed: Viewed, position: int) -> float:
    if viewed.axis == "position":
        return float(position)
    return float(viewed.index.frame_time[position])


def _gaps(viewed: Viewed, first: int, last: int) -> list[dict[str, Any]]:
    """The gaps before the positions first .. last-1, the largest where there are many."""
    position, missing = viewed.gaps.position, viewed.gaps.missing
    low, high = np.searchsorted(position, [first, last])
    places: NDArray[np.int64] = np.arange(low, high)
    if len(places) > MOST_MARKS:
        largest = np.argpartition(missing[low:high], -MOST_MARKS)[-MOST_MARKS:]
        places = np.sort(low + largest)
    return [
        {
            "start": _on_axis(viewed, int(position[i]) - 1),
            "stop": _on_axis(viewed, int(position[i])),
            "position": int(position[i]),
            "missing": float(missing[i]),
        }
        for i in places
    ]


def _chunks(viewed: Viewed, first: int, last: int) -> list[float]:
    """Where chunks begin on the axis, unless there are too many to show."""
    starts = viewed.index.chunk_starts
    low, high = np.searchsorted(starts, [first, last])
    if high - low > MOST_MARKS:
        return []
    return [_on_axis(viewed, int(position)) for position in starts[low:high]]


def _problems(viewed: Viewed) -> list[dict[str, Any]]:
    """Chunks that are missing or damaged, and frames that could not be read when they were looked at."""
    found = []
    report = viewed.report
    for problem in report.problems[:MOST_MARKS] if report else ():
        start, stop = _span(viewed, problem.chunk) if problem.chunk is not None else (None, None)
        found.append(
            {
                "kind": problem.kind,
                "message": viewed.without_path(problem.message),
                "chunk": problem.chunk,
                "start": start,
                "stop": stop,
            }
        )
    for damage in list(viewed.damaged.values())[:MOST_MARKS]:
        at = _on_axis(viewed, damage.moment.position)
        found.append(
            {
                "kind": "frame-damaged",
                "message": damage.message,
                "chunk": damage.chunk,
                "start": at,
                "stop": at,
            }
        )
    return found


def _span(viewed: Viewed, chunk: int) -> tuple[float | None, float | None]:
    index = viewed.index
    if viewed.axis == "time":
        assert viewed.report is not None
        span = span_of(viewed.report.chunk_times, chunk)
        return span if span and all(map(math.isfinite, span)) else (None, None)
    rows = np.flatnonzero(index.chunk_numbers == chunk)
    if len(rows):
        i = int(rows[0])
        return float(index.chunk_starts[i]), float(index.chunk_stops[i] - 1)
    after = np.flatnonzero(index.chunk_numbers > chunk)
    at = float(index.chunk_starts[int(after[0])]) if len(after) else float(len(index) - 1)
    return at, at
