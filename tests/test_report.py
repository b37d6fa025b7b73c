"""Reports against pandas and plain loops."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imgstore_zarr import FrameIndex, Gap, Problem, RecordingInfo, Report
from imgstore_zarr import report as report_module
from imgstore_zarr.report import Step, damaged_report, make_report
from imgstore_zarr.timeline import Timeline

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
            gaps.append(Gap(position, before, now, now - before - 1, 0.25, position / 4))
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
    assert report.gaps == (Gap(2, after=11, before=15, missing=3, seconds=2.5, frame_time=3.5),)
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
    gap = {"position": 2, "after": 1, "before": 5, "missing": 3, "seconds": 0.5, "frame_time": 1.0}
    assert again["gaps"] == [gap]
    # Thousands of numbers, which are no text for people.
    assert {"timeline", "chunk_times"}.isdisjoint(again)


def test_steps_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    report = of([3, 3, 5, 4, 4], [0.0, 1.0, 0.5, 2.0, 2.5])
    assert report.steps == (
        Step("repeat", 1, before=3, frame_number=3, seconds=1.0, frame_time=1.0),
        Step("repeat", 4, before=4, frame_number=4, seconds=0.5, frame_time=2.5),
        Step("backward", 3, before=5, frame_number=4, seconds=1.5, frame_time=2.0),
        Step("backward-time", 2, before=3, frame_number=5, seconds=-0.5, frame_time=0.5),
    )
    monkeypatch.setattr(report_module, "MAX_STEPS", 3)
    report = of([7] * 9)
    assert [step.position for step in report.steps] == [1, 2, 3]
    assert report.repeated == 8


def test_reports_are_compared_and_travel() -> None:
    report = of([0, 1, 5, 6, 7])
    assert report == of([0, 1, 5, 6, 7])
    assert report != of([0, 1, 5, 6, 8])
    again = pickle.loads(pickle.dumps(report))
    assert again == report
    assert hash(again) == hash(report)
    assert again.timeline.to_dataframe().equals(report.timeline.to_dataframe())
    assert "timeline" not in repr(report)


# The timeline.


def check_timeline(number: Any, time: Any) -> Timeline:
    """A timeline against pandas, which cuts at the edges that it gives."""
    report = of(number, time)
    line = report.timeline
    table = pd.DataFrame({"number": np.asarray(number, np.int64), "time": np.asarray(time, float)})
    steps = [0, *(b - a for a, b in itertools.pairwise(number))][: len(number)]
    table["dropped"] = [max(step - 1, 0) for step in steps]
    follows = np.array(steps) == 1
    # Infinite times are infinitely far from others.
    since = table["time"].where(np.isfinite(table["time"])).diff()
    table["interval"] = since.where(follows | (not follows.any()))
    table = table[np.isfinite(table["time"])]
    assert len(line) == max(min(1000, len(table) // 4), 1 if len(table) else 0) or line.width == 0
    if not len(table):
        assert len(line) == 0
        return line
    assert line.start[0] == table["time"].min()
    assert line.start[-1] <= table["time"].max()
    assert line.start[0] + line.width * len(line) == pytest.approx(table["time"].max())
    edges = [*line.start, np.inf]
    by = table.groupby(pd.cut(table["time"], edges, right=False, labels=False))
    groups = range(len(line))
    np.testing.assert_array_equal(line.frames, by.size().reindex(groups, fill_value=0))
    np.testing.assert_array_equal(line.dropped, by["dropped"].sum().reindex(groups, fill_value=0))
    np.testing.assert_allclose(line.interval, by["interval"].median().reindex(groups))
    np.testing.assert_allclose(line.longest, by["interval"].max().reindex(groups))
    assert int(line.dropped.sum()) == report.dropped or not np.isfinite(time).all()
    return line


@pytest.mark.parametrize("order", ["in order", "jittery", "shuffled", "partly unknown"])
@pytest.mark.parametrize("count", [1, 2, 3, 9, 700, 9_001])
def test_a_timeline_as_by_pandas(rng: np.random.Generator, count: int, order: str) -> None:
    number = np.cumsum(rng.choice([1, 1, 1, 1, 1, 0, 2, 40, -3], count))
    time = 1.7e9 + np.cumsum(rng.choice([0.02, 0.02, 0.02, 0.021, 7.0], count))
    if order == "jittery":
        time += rng.normal(0, 0.05, count)
    if order == "shuffled":
        time = rng.permutation(time)
    if order == "partly unknown":
        time[rng.random(count) < 0.2] = np.nan
        time[rng.random(count) < 0.1] = np.inf
    check_timeline(number.tolist(), time)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([0.0, 1.0, 1.5, -2.0, math.nan, math.inf])),
        max_size=25,
    )
)
def test_a_timeline_of_few_frames(rows: list[tuple[int, float]]) -> None:
    check_timeline([number for number, _ in rows], np.array([time for _, time in rows], float))


def test_edges_of_a_timeline_as_by_numpy(rng: np.random.Generator) -> None:
    time = np.sort(rng.uniform(0, 100, 5000))
    line = of(list(range(5000)), time).timeline
    counts, edges = np.histogram(time, 1000)
    np.testing.assert_allclose(line.start, edges[:-1])
    np.testing.assert_array_equal(line.frames, counts)
    np.testing.assert_allclose(line.rate, counts / np.diff(edges))


def test_a_camera_that_never_counts_by_one() -> None:
    line = check_timeline(list(range(0, 80, 2)), np.arange(40) / 4)
    np.testing.assert_array_equal(line.interval, 0.25)
    assert line.dropped.sum() == 39


@pytest.mark.parametrize(
    "time",
    [
        np.zeros(20),
        np.full(20, 1e300),
        np.linspace(-1e300, 1e300, 20),
        np.linspace(-1, 1, 20) * 1.7e308,
        np.array([-1.7e308, 1.7e308] * 10),
        np.arange(20) * 5e-324,
        np.nextafter(1e300, [1e300, math.inf] * 10),
    ],
    ids=["same", "same and huge", "huge", "largest", "back and forth", "smallest", "neighbours"],
)
def test_a_timeline_of_odd_times(time: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        line = of(list(range(20)), time).timeline
        assert len(line.to_dataframe()) == len(line)
    assert line.frames.sum() == 20
    assert np.all(line.start[:-1] <= line.start[1:])
    assert np.isnan(line.rate).all() == (line.width == 0)


def test_gaps_that_no_integer_holds() -> None:
    line = of([LOWEST, HIGHEST, 0, 2**40, 2**40 + 4], [0.0, 1.0, 2.0, 3.0, 4.0]).timeline
    assert line.dropped.tolist() == [HIGHEST]
    line = of([0, 2**40, 2**40 + 4, 2**41], [0.0, 1.0, 2.0, 3.0]).timeline
    assert line.dropped.tolist() == [2**41 - 3]


def test_reports_without_a_timeline() -> None:
    report = damaged_report("/data/arena", "video", "gone")
    assert len(report.timeline) == 0
    assert report.timeline.to_dataframe().empty


def test_the_times_of_chunks() -> None:
    index = FrameIndex([5, 6, 7, 8, 9], [0, 2, 1, math.nan, math.inf], [0, 3], [4, 6])
    chunks = make_report(INFO, index).chunk_times
    assert chunks.number.tolist() == [4, 6]
    assert chunks.position.tolist() == [0, 3]
    assert chunks.frame_number.tolist() == [5, 8]
    np.testing.assert_array_equal(chunks.start, [0, math.nan])
    np.testing.assert_array_equal(chunks.stop, [2, math.nan])
