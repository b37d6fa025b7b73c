"""Extra data and events on frames, against pandas and against the definition."""

from __future__ import annotations

import datetime as dt
import math
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pandas.testing import assert_frame_equal

from imgstore_zarr.errors import InvalidMetadataError
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.joining import events_on_frames, extra_on_frames
from imgstore_zarr.matching import match_positions

Method = Literal["nearest", "previous", "next"]
DIRECTIONS: dict[str, Any] = {"nearest": "nearest", "previous": "backward", "next": "forward"}


def merged(keys: Any, wanted: Any, method: Method, tolerance: Any, last: bool) -> list[int]:
    """What match_positions gives, by pandas."""
    right = pd.DataFrame({"key": keys, "found": np.arange(len(keys))}).dropna()
    right = right.drop_duplicates("key", keep="last" if last else "first").sort_values("key")
    left = (
        pd.DataFrame({"key": wanted, "place": np.arange(len(wanted))}).dropna().sort_values("key")
    )
    table = pd.merge_asof(left, right, on="key", direction=DIRECTIONS[method], tolerance=tolerance)
    found = table.set_index("place")["found"].reindex(range(len(wanted)))
    return found.fillna(-1).astype(int).tolist()


def searched(keys: Any, wanted: Any, method: Method, tolerance: Any, last: bool) -> list[int]:
    """The same by looking at each key for each wanted one, in exact arithmetic."""
    limit = math.inf if tolerance is None else tolerance
    found = []
    for want in wanted:
        best = (Fraction(0), 0.0, -1, -1)
        for i, key in enumerate(keys):
            if not (math.isfinite(key) and math.isfinite(want)):
                continue
            if (method == "previous" and key > want) or (method == "next" and key < want):
                continue
            # Within the tolerance is what `abs(a - b) <= tolerance` says.
            if abs(key - want) > limit:
                continue
            rank = (abs(Fraction(key) - Fraction(want)), key, -i if last else i, i)
            best = rank if best[3] < 0 else min(best, rank)
        found.append(best[3])
    return found


# Eighths: distances between them are exact, so that pandas sees the same ties.
eighths = st.integers(-30, 30).map(lambda n: n / 8) | st.just(math.nan)
any_times = (
    st.floats(-3, 3)
    | st.integers(-3, 3).map(float)
    | st.sampled_from([math.nan, math.inf, -math.inf, 1e-20, 1.7e9, 1.7e9 + 2**-22, 1e308, -1e308])
)
numbers = st.integers(-12, 12) | st.integers(-(2**63), 2**63 - 1) | st.integers(2**60, 2**60 + 9)
methods = st.sampled_from(["nearest", "previous", "next"])


@given(
    st.lists(eighths, max_size=12),
    st.lists(eighths, max_size=12),
    methods,
    st.none() | st.integers(0, 8).map(lambda n: n / 8),
    st.booleans(),
)
def test_times_by_merge_asof(
    keys: list[float], wanted: list[float], method: Method, tolerance: float | None, last: bool
) -> None:
    a, b = np.array(keys, float), np.array(wanted, float)
    limit = math.inf if tolerance is None else tolerance
    found = match_positions(a, b, method, limit, last=last).tolist()
    assert found == merged(a, b, method, tolerance, last)
    assert found == searched(keys, wanted, method, tolerance, last)


@given(
    st.lists(any_times, max_size=8),
    st.lists(any_times, max_size=8),
    methods,
    st.none() | st.floats(0, 3),
    st.booleans(),
)
def test_any_times_by_definition(
    keys: list[float], wanted: list[float], method: Method, tolerance: float | None, last: bool
) -> None:
    limit = math.inf if tolerance is None else tolerance
    found = match_positions(
        np.array(keys, float), np.array(wanted, float), method, limit, last=last
    )
    assert found.tolist() == searched(keys, wanted, method, tolerance, last)


@given(
    st.lists(numbers, max_size=8),
    st.lists(numbers, max_size=8),
    methods,
    st.none() | st.integers(0, 6) | st.floats(0, 4) | st.just(2.0**70),
    st.booleans(),
)
def test_any_numbers_by_definition(
    keys: list[int], wanted: list[int], method: Method, tolerance: float | None, last: bool
) -> None:
    limit = math.inf if tolerance is None else tolerance
    found = match_positions(
        np.array(keys, np.int64), np.array(wanted, np.int64), method, limit, last=last
    )
    assert found.tolist() == searched(keys, wanted, method, tolerance, last)


def recording(rng: np.random.Generator, count: int) -> FrameIndex:
    """Gaps, repeats, steps back, times that are not known; times in 1024ths of a second."""
    steps = rng.choice([1, 1, 1, 1, 0, 2, 40, -30], count)
    times = 1.7e9 + np.cumsum(rng.integers(20, 60, count) * np.sign(steps)) / 1024
    times[rng.random(count) < 0.02] = np.nan
    return FrameIndex(1000 + np.cumsum(steps), times)


def extra_data(rng: np.random.Generator, index: FrameIndex, count: int) -> pd.DataFrame:
    where = rng.integers(0, max(1, len(index)), count)
    known = np.append(np.nan_to_num(index.frame_time, nan=1.7e9), 1.7e9)
    times = known[where] + rng.integers(-40, 40, count) / 1024
    times[rng.random(count) < 0.05] = np.nan
    frames = np.append(index.frame_number, 0)[where] + rng.integers(-3, 3, count)
    return pd.DataFrame(
        {
            "frame_time": times,
            "temperature": rng.random(count),
            "frame_number": frames,
            "lamp": rng.random(count) < 0.5,
            "pulses": rng.integers(0, 9, count),
            "frame_index": where,
            "note": rng.choice(["a", "b"], count).astype(object),
            "level": pd.array(rng.integers(0, 9, count), dtype="Int64"),
        },
        # Labels that repeat, as after pandas.concat.
        index=rng.integers(0, 5, count),
    )


def keys_of(index: FrameIndex, on: str) -> NDArray[Any]:
    if on == "frame_index":
        return np.arange(len(index))
    return index.frame_time if on == "frame_time" else index.frame_number


TOLERANCES: dict[str, list[Any]] = {
    "frame_time": [None, 0.0, 16 / 1024],
    "frame_number": [None, 0, 2],
    "frame_index": [None, 0, 2],
}


@pytest.mark.parametrize("on", ["frame_time", "frame_number", "frame_index"])
@pytest.mark.parametrize("method", ["nearest", "previous"])
@pytest.mark.parametrize(("frames", "records"), [(400, 150), (60, 900), (5, 0), (0, 5), (1, 1)])
def test_extra_on_frames(on: Any, method: Any, frames: int, records: int) -> None:
    rng = np.random.default_rng(frames)
    index = recording(rng, frames)
    extra = extra_data(rng, index, records)
    before = extra.copy()
    for tolerance in TOLERANCES[on]:
        table = extra_on_frames(index, extra, on=on, method=method, tolerance=tolerance)
        record = merged(
            extra[on].to_numpy(), keys_of(index, on), method, tolerance, method == "previous"
        )
        columns = ["temperature", "lamp", "pulses", "note", "level"]
        expected = extra[columns].reset_index(drop=True).reindex(record)
        expected.index = pd.RangeIndex(frames, name="frame")
        expected["record_index"] = np.array(record, np.int64)
        assert_frame_equal(table, expected)
        assert isinstance(table.index, pd.RangeIndex)
    assert_frame_equal(extra, before)


def test_extra_that_all_frames_have_keeps_its_dtypes() -> None:
    index = FrameIndex([0, 1, 2], [0.0, 1.0, 2.0])
    extra = pd.DataFrame({"frame_time": [0, 1], "pulses": [3, 4], "lamp": [True, False]})
    table = extra_on_frames(index, extra)
    assert table["pulses"].tolist() == [3, 4, 4]
    assert table.dtypes.to_dict() == {
        "pulses": np.int64,
        "lamp": np.bool_,
        "record_index": np.int64,
    }
    without = extra_on_frames(index, extra, tolerance=0.5)
    assert without["pulses"].dtype == np.float64
    assert without["record_index"].tolist() == [0, 1, -1]
    assert without["lamp"].isna().tolist() == [False, False, True]


def test_equal_records_and_ties() -> None:
    index = FrameIndex([10, 20, 30], [1.0, 2.0, 3.0])
    extra = pd.DataFrame({"frame_time": [2.5, 1.5, 1.5, 2.5]})
    assert extra_on_frames(index, extra)["record_index"].tolist() == [1, 1, 0]
    assert extra_on_frames(index, extra, method="previous")["record_index"].tolist() == [-1, 2, 3]
    close = extra_on_frames(index, extra, tolerance=0.5)
    assert close["record_index"].tolist() == [1, 1, 0]
    assert extra_on_frames(index, extra, tolerance=0.499)["record_index"].tolist() == [-1, -1, -1]


@pytest.mark.parametrize("on", ["frame_time", "frame_number"])
@pytest.mark.parametrize("method", ["nearest", "previous", "next"])
@pytest.mark.parametrize("column", [None, "when"])
@pytest.mark.parametrize(("frames", "count"), [(400, 150), (60, 900), (5, 0), (0, 5), (1, 1)])
def test_events_on_frames(
    on: Any, method: Any, column: str | None, frames: int, count: int
) -> None:
    rng = np.random.default_rng(frames)
    index = recording(rng, frames)
    events = extra_data(rng, index, count).drop(columns=["frame_index"])
    if column:
        # What the events say of frames themselves is then left as it is.
        events = events.assign(when=events[on], frame_number=-5, frame_time="late")
    before = events.copy()
    for tolerance in TOLERANCES[on]:
        table = events_on_frames(
            index, events, on=on, column=column, method=method, tolerance=tolerance
        )
        wanted = events[column or on].to_numpy()
        positions = merged(keys_of(index, on), wanted, method, tolerance, False)
        frame = pd.DataFrame({"number": index.frame_number, "time": index.frame_time})
        matched = frame.astype({"number": "Int64"}).reindex(positions)
        expected = events.assign(
            matched_index=np.array(positions, np.int64),
            matched_number=matched["number"].array,
            matched_time=matched["time"].array,
        )
        assert_frame_equal(table, expected)
    assert_frame_equal(events, before)


@pytest.mark.parametrize("method", ["previous", "next"])
def test_events_by_reindexing(method: Any) -> None:
    rng = np.random.default_rng(8)
    times = np.sort(rng.choice(5000, 300, replace=False)) / 1024
    index = FrameIndex(np.arange(300), times)
    events = pd.DataFrame({"frame_time": rng.integers(-50, 5050, 500) / 1024})
    fill: Any = {"previous": "ffill", "next": "bfill"}[method]
    positions = pd.Series(np.arange(300), index=times)
    expected = positions.reindex(events["frame_time"], method=fill, tolerance=0.01).fillna(-1)
    table = events_on_frames(index, events, method=method, tolerance=0.01)
    np.testing.assert_array_equal(table["matched_index"], expected)


def test_many_frames_by_merge_asof() -> None:
    rng = np.random.default_rng(4)
    times = 1.7e9 + np.arange(300_000) / 32 + rng.integers(0, 16, 300_000) / 1024
    shuffled = rng.permutation(len(times))
    index = FrameIndex(shuffled, times[shuffled])
    extra = pd.DataFrame({"frame_time": rng.permutation(times)[:100_000] + 3 / 1024})
    found = extra_on_frames(index, extra, tolerance=0.25)["record_index"]
    assert found.tolist() == merged(extra["frame_time"], index.frame_time, "nearest", 0.25, False)
    positions = events_on_frames(index, extra, method="next")["matched_index"]
    assert positions.tolist() == merged(index.frame_time, extra["frame_time"], "next", None, False)


def test_what_rounding_makes_equal_is_no_tie() -> None:
    keys = np.array([-1.0, 1.0])
    wanted = np.array([1e-20, 0.0, -1e-20])
    assert match_positions(keys, wanted, "nearest").tolist() == [1, 0, 0]
    # Distances of whole numbers are whole numbers.
    ten = np.array([10])
    assert match_positions(ten, np.array([12, 11]), "nearest", 1.5).tolist() == [-1, 0]


def test_repeated_frames_are_the_first_in_recording_order() -> None:
    index = FrameIndex([7, 5, 5, 7, 5], [1.0, 3.0, 3.0, 1.0, 0.0])
    for method in ("nearest", "previous", "next"):
        by_number = events_on_frames(
            index, pd.DataFrame({"frame_number": [5, 7]}), on="frame_number", method=method
        )
        assert by_number["matched_index"].tolist() == [1, 0]
        by_time = events_on_frames(index, pd.DataFrame({"frame_time": [3, 1]}), method=method)
        assert by_time["matched_index"].tolist() == [1, 0]
        assert by_time["matched_number"].tolist() == [5, 7]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "America/St_Johns"])
def test_datetimes_are_unix_seconds(unit: Any, zone: str | None) -> None:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    rng = np.random.default_rng(per_second)
    # Before 1970 too, and around a change to summer time.
    first = np.repeat([1_711_846_800, -86_400_000], 500)
    stamps = first * per_second + rng.integers(0, 7200 * per_second, 1000)
    exact = [Fraction(stamp, per_second) for stamp in stamps.tolist()]
    times = pd.Series(stamps.view(f"M8[{unit}]"))
    times[3] = pd.NaT
    if zone:
        times = times.dt.tz_localize("UTC").dt.tz_convert(zone)
    index = FrameIndex(np.arange(1000), [float(time) for time in exact])
    table = events_on_frames(index, pd.DataFrame({"at": times}), column="at", tolerance=0.0)
    there = table["matched_index"] >= 0
    assert np.flatnonzero(~there).tolist() == [3]
    np.testing.assert_array_equal(table["matched_time"][there], index.frame_time[there.to_numpy()])
    assert table["at"].dtype == times.dtype
    extra = pd.DataFrame({"frame_time": times, "v": 1})
    record = extra_on_frames(index, extra, tolerance=0.0)["record_index"]
    np.testing.assert_array_equal(
        index.frame_time[record[record >= 0]], index.frame_time[record >= 0]
    )


@pytest.mark.parametrize(
    "values",
    [
        [12, 11, 10],
        [12.0, 11.0, 10.0],
        np.array([12, 11, 10], np.uint64),
        np.array([12, 11, 10], np.int8),
        np.array([12, 11, 10], np.float16),
        pd.array([12, 11, 10], dtype="Int64"),
        pd.array([12, 11, 10], dtype="UInt8"),
        pd.array([12, 11, 10], dtype="Float32"),
        pd.array([12, 11, 10], dtype=object),
    ],
    ids=lambda values: str(getattr(values, "dtype", type(values[0]).__name__)),
)
@pytest.mark.parametrize("on", ["frame_number", "frame_time"])
def test_columns_of_numbers(values: Any, on: Any) -> None:
    index = FrameIndex([10, 11, 12], [10.0, 11.0, 12.0])
    events = pd.DataFrame({on: values})
    assert events_on_frames(index, events, on=on)["matched_index"].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    "values",
    [
        pd.array([None, 11], dtype="Int64"),
        pd.array([None, 11], dtype="Float64"),
        pd.array([None, 11], dtype=object),
        [np.nan, 11.0],
        [np.inf, 11.0],
    ],
)
def test_missing_numbers_match_nothing(values: Any) -> None:
    index = FrameIndex([10, 11, 12], [10.0, 11.0, 12.0])
    for on in ("frame_number", "frame_time"):
        table: Any = pd.DataFrame({on: values})
        options: dict[str, Any] = {"on": on}
        found = events_on_frames(index, table, **options)
        assert found["matched_index"].tolist() == [-1, 1]
        assert found["matched_number"].dtype == "Int64"
        assert found["matched_number"].isna().tolist() == [True, False]
        assert extra_on_frames(index, table, **options)["record_index"].tolist() == [1, 1, 1]
        nothing = table.iloc[:1]
        assert events_on_frames(index, nothing, **options)["matched_index"].tolist() == [-1]
        assert extra_on_frames(index, nothing, **options)["record_index"].tolist() == [-1, -1, -1]
    empty = pd.DataFrame({"frame_time": [None, None]})
    assert events_on_frames(index, empty)["matched_index"].tolist() == [-1, -1]


def test_big_numbers_are_exact() -> None:
    """Cameras number frames by their clock's nanoseconds, which float64 does not hold."""
    big = 1_700_000_000_000_000_000
    index = FrameIndex([big, big + 1, big + 2], [0.0, 1.0, 2.0])
    events = pd.DataFrame({"frame_number": [big + 2, big + 1, big + 4]})
    table = events_on_frames(index, events, on="frame_number", tolerance=1)
    assert table["matched_index"].tolist() == [2, 1, -1]
    assert table["matched_number"].tolist()[:2] == [big + 2, big + 1]


INDEX = FrameIndex([1, 2], [1.0, 2.0])


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        (
            {"frame_number": [1]},
            {},
            "no columns are called 'frame_time'.*columns are .'frame_number'",
        ),
        ({}, {}, r"the columns are \[\]"),
        ({"frame_time": ["1"]}, {}, "'frame_time' has dtype .* needs seconds or datetimes"),
        ({"frame_time": [True]}, {}, "has dtype bool"),
        ({"frame_time": [1j]}, {}, "has dtype complex128"),
        ({"frame_time": [[1], [2]]}, {}, "has dtype object"),
        ({"frame_time": [dt.timedelta(1)]}, {}, "has dtype timedelta64"),
        ({"frame_number": ["1"]}, {"on": "frame_number"}, "needs whole numbers; convert it"),
        (
            {"frame_number": [dt.datetime(2024, 1, 1)]},
            {"on": "frame_number"},
            "needs whole numbers",
        ),
        (
            {"frame_number": [np.nan, 1, 2.5, 0.1]},
            {"on": "frame_number"},
            "no 64-bit integer in 2 rows, the first of them row 2 with 2.5; round it",
        ),
        ({"frame_number": [1e300]}, {"on": "frame_number"}, "row 0 with 1e"),
        ({"frame_number": np.array([2**63], "u8")}, {"on": "frame_number"}, "row 0 with 9223372"),
    ],
)
def test_bad_columns(table: Any, options: Any, said: str) -> None:
    frame = pd.DataFrame(table)
    for what, join in (("extra data", extra_on_frames), ("events", events_on_frames)):
        with pytest.raises(InvalidMetadataError, match=f"the {what}: .*{said}"):
            join(INDEX, frame, **options)


def test_names_that_are_taken() -> None:
    twice = pd.DataFrame([[1, 2]], columns=["frame_time", "frame_time"])
    with pytest.raises(InvalidMetadataError, match="2 columns are called 'frame_time'"):
        extra_on_frames(INDEX, twice)
    extra = pd.DataFrame({"frame_time": [1.0], "record_index": ["LP 3"]})
    with pytest.raises(InvalidMetadataError, match=r"has a column 'record_index'.*rename it"):
        extra_on_frames(INDEX, extra)
    events = pd.DataFrame({"frame_time": [1.0], "sound": "a"})
    found = events_on_frames(INDEX, events)
    said = r"\['matched_index', 'matched_number', 'matched_time'\] already.*rename or drop"
    with pytest.raises(InvalidMetadataError, match=said):
        events_on_frames(INDEX, found)
    with pytest.raises(InvalidMetadataError, match="no columns are called 'start'"):
        events_on_frames(INDEX, events, column="start")
    with pytest.raises(InvalidMetadataError, match="'sound' has dtype"):
        events_on_frames(INDEX, events, column="sound")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on": "time"}, "on must be one of frame_time, frame_number"),
        ({"method": "last"}, "method must be one of nearest, previous"),
        ({"tolerance": -1}, "tolerance must be a number of seconds, at least 0, not -1"),
        ({"tolerance": math.nan}, "at least 0, not nan"),
        ({"tolerance": "1"}, "at least 0, not '1'"),
        ({"tolerance": pd.Timedelta("1s")}, "tolerance must be a number of seconds"),
        ({"tolerance": -2, "on": "frame_number"}, "a number of frames"),
    ],
)
def test_bad_arguments(options: Any, said: str) -> None:
    table = pd.DataFrame({"frame_time": [1.0], "frame_number": [1]})
    for join in (extra_on_frames, events_on_frames):
        with pytest.raises(ValueError, match=said):
            join(INDEX, table, **options)
    with pytest.raises(ValueError, match="on must be one of frame_time, frame_number, not"):
        events_on_frames(INDEX, table, on="frame_index")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="method must be one of nearest, previous, not"):
        extra_on_frames(INDEX, table, method="next")  # type: ignore[arg-type]
