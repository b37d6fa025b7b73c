"""Reports against pandas and plain loops."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imgstore_zarr import FrameIndex, Gap, Problem, RecordingInfo, Report
from imgstore_zarr.report import make_report

INFO = RecordingInfo(
    name="/data/arena",
    layout="zarr",
    format="zstd/zarr",
    imgshape=(4, 6),
    stored_shape=(4, 6),
    imgdtype=np.dtype(np.uint8),
    encoding=None,
    chunksize=10,
    created=dt.datetime(2024, 2, 29, tzinfo=dt.UTC),
    timezone=dt.UTC,
    uuid=None,
    user_metadata={},
    lossless=True,
)

LOWEST, HIGHEST = -(2**63), 2**63 - 1

numbers = st.lists(
    st.integers(-5, 12) | st.integers(LOWEST, HIGHEST) | st.sampled_from([LOWEST, HIGHEST]),
    max_size=20,
)


def of(frame_number: list[int], frame_time: Any = None) -> Report:
    times = np.arange(len(frame_number)) / 4 if frame_time is None else frame_time
    return make_report(INFO, FrameIndex(frame_number, times))


@given(numbers)
@example([LOWEST, HIGHEST, LOWEST])
@example([3, 3, 5, 4, 4, 5, 6])
def test_numbers_as_by_a_loop(frame_number: list[int]) -> None:
    gaps = []
    repeated = backward = 0
    for position in range(1, len(frame_number)):
        before, now = frame_number[position - 1], frame_number[position]
        repeated += now == before
        backward += now < before
        if now > before + 1:
            gaps.append(Gap(position, before, now, now - before - 1, 0.25))
    report = of(frame_number)
    assert report.gaps == tuple(gaps)
    assert report.dropped == sum(gap.missing for gap in gaps)
    assert (report.repeated, report.backward) == (repeated, backward)
    assert report.frame_count == len(frame_number)


@given(
    st.lists(
        st.tuples(st.integers(-3, 30), st.integers(-(2**40), 2**40).map(lambda n: n / 1024)),
        max_size=30,
    )
)
def test_times_as_by_pandas(rows: list[tuple[int, float]]) -> None:
    table = pd.DataFrame(rows, columns=["number", "time"]).astype({"number": "int64", "time": "f8"})
    report = of(table["number"].tolist(), table["time"].to_numpy())
    steps = table.diff().dropna()
    steady = steps["time"][steps["number"] == 1]
    assert report.interval == pytest.approx(steps["time"].median(), nan_ok=True)
    assert report.jitter == pytest.approx(steady.std(ddof=0), nan_ok=True, abs=1e-6)
    assert report.longest_interval == pytest.approx(steady.max(), nan_ok=True)
    assert report.backward_times == int((steps["time"] < 0).sum())
    if rows:
        assert report.duration == table["time"].max() - table["time"].min()


def test_a_gap_says_where_and_how_long() -> None:
    report = of([10, 11, 15, 16, 14], [0.0, 1.0, 3.5, 4.0, 5.0])
    assert report.gaps == (Gap(2, after=11, before=15, missing=3, seconds=2.5),)
    text = str(report)
    assert "1 gap with 3 frames dropped, 0 repeated, 1 going back" in text
    assert "gap at position 2: 3 frames after number 11, 2.500 s" in text


@pytest.mark.parametrize("count", [0, 1])
def test_recordings_without_intervals(count: int) -> None:
    report = of([7] * count)
    assert math.isnan(report.interval)
    assert math.isnan(report.jitter)
    assert math.isnan(report.longest_interval)
    assert report.duration == 0
    assert report.chunk_count == count
    assert ("1 frame in 1 chunk," if count else "0 frames in 0 chunks,") in str(report)


@pytest.mark.parametrize(
    "frame_time",
    [
        [0.0, math.nan, 2.0, 3.0],
        [math.inf, math.inf, 2.0, 3.0],
        [-math.inf, 0.0, math.inf, math.inf],
        [math.nan] * 4,
    ],
    ids=str,
)
def test_times_that_are_not_finite_are_survived(frame_time: list[float]) -> None:
    finite = [time for time in frame_time if math.isfinite(time)]
    report = of([1, 2, 3, 4], frame_time)
    assert report.duration == (max(finite) - min(finite) if finite else 0)
    assert report.frame_count == 4
    assert "4 frames" in str(report)


def test_problems_are_told() -> None:
    problem = Problem("chunk-missing", "chunk 3 is missing", 3)
    index = FrameIndex([0, 1, 5], [0.0, 0.5, 1.0], [0, 2])
    report = make_report(INFO, index, (problem,))
    assert not report.ok
    assert report.problems == (problem,)
    assert report.chunk_count == 2
    assert "problem: chunk 3 is missing" in str(report)
    # A gap is the camera's doing.
    assert make_report(INFO, index).ok


def test_a_report_as_text() -> None:
    lines = str(of([0, 1, 2, 3])).splitlines()
    assert lines[0] == "/data/arena: zstd/zarr (zarr layout)"
    assert "4 frames in 1 chunk, 0.750 s, 4.00 frames/s" in lines[1]
    assert "interval 250.000 ms, jitter 0.000 ms, longest 250.000 ms" in lines[2]


def test_many_gaps_are_cut_short() -> None:
    text = str(of(list(range(0, 100, 2))))
    assert "49 gaps with 49 frames dropped" in text
    assert text.count("gap at position") == 20
    assert "and 29 more gaps" in text


def test_a_report_lists_a_bounded_number_of_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgstore_zarr.report.MAX_GAPS", 3)
    report = of([0, 10, 20, 30, 40, 2**62])
    assert [gap.position for gap in report.gaps] == [1, 2, 3]
    assert report.gap_count == 5
    assert report.dropped == 4 * 9 + 2**62 - 41


def test_a_report_as_json() -> None:
    report = of([0, 1, 5], [0.0, 0.5, 1.0])
    again = json.loads(json.dumps(report.to_dict()))
    assert again["ok"] is True
    assert again["frame_count"] == 3
    assert again["gaps"] == [{"position": 2, "after": 1, "before": 5, "missing": 3, "seconds": 0.5}]
