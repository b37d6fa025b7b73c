"""What belongs to which frame: extra data on the frames' axis, and the frames of events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import InvalidMetadataError
from imgstore_zarr.index import Float64s, FrameIndex, Int64s
from imgstore_zarr.matching import match_positions

if TYPE_CHECKING:
    import pandas as pd

_FRAME_COLUMNS = ("frame_time", "frame_number", "frame_index")
_EVENT_RESULTS = ("matched_index", "matched_number", "matched_time")
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def extra_on_frames(
    index: FrameIndex,
    extra: pd.DataFrame,
    *,
    on: Literal["frame_time", "frame_number", "frame_index"] = "frame_time",
    method: Literal["nearest", "previous"] = "nearest",
    tolerance: float | None = None,
) -> pd.DataFrame:
    """Put extra data on the frames: one row per frame.

    Parameters
    ----------
    index
        Of the recording.
    extra
        One row per record, in any order, with the column `on`.
    on
        What tells which record belongs to a frame: the frame's time in seconds (in `extra` it may be
        a datetime, UTC if it has no time zone), its number, or its position. What is missing, NaN or
        infinite matches nothing.
    method
        ``"nearest"``: the nearest record; on a tie the earlier one, of equal ones the first in the
        table. ``"previous"``: the last record at or before the frame, of equal ones the last in the
        table.
    tolerance
        How far apart the two may be, at most: in seconds, or in numbers. By default any distance.

    Returns
    -------
    DataFrame
        One row per frame in recording order, with the columns of `extra` other than ``frame_time``,
        ``frame_number`` and ``frame_index``. Frames without a record have what pandas reindexing
        gives, so that integers become floats, and booleans objects, if there are such frames. The
        column ``record_index`` (int64) is the row of `extra`, counted from 0, or -1.

    Raises
    ------
    InvalidMetadataError
        No column `on`, or one that holds something else; or a column ``record_index``.
    ValueError
        An argument that is not among those above.
    """
    import pandas as pd

    _check("on", on, _FRAME_COLUMNS)
    _check("method", method, ("nearest", "previous"))
    limit = _limit(tolerance, on)
    if "record_index" in extra.columns:
        raise InvalidMetadataError(
            "the extra data has a column 'record_index', which is also the name of the column that "
            "tells which row belongs to a frame; rename it: extra.rename(columns={'record_index': ...})"
        )
    rows, keys = _column(extra, on, on, "extra data")
    found = match_positions(keys, _of_frames(index, on), method, limit, last=method == "previous")
    record = np.append(rows, -1)[found]
    table = extra.drop(columns=list(_FRAME_COLUMNS), errors="ignore").reset_index(drop=True)
    table = table.reindex(record)
    table.index = pd.RangeIndex(len(index), name="frame")
    table["record_index"] = record
    return table


def events_on_frames(
    index: FrameIndex,
    events: pd.DataFrame,
    *,
    on: Literal["frame_time", "frame_number"] = "frame_time",
    column: str | None = None,
    method: Literal["nearest", "previous", "next"] = "nearest",
    tolerance: float | None = None,
) -> pd.DataFrame:
    """Find the frame that belongs to each event.

    Parameters
    ----------
    index
        Of the recording.
    events
        One row per event, in any order.
    on
        What tells which frame belongs to an event: its time or its number. What is missing, NaN or
        infinite matches nothing.
    column
        The column of `events` that holds it, by default the one called as `on` says. Times are
        seconds of the recording's clock, or datetimes, UTC if they have no time zone.
    method
        ``"nearest"``: the nearest frame, on a tie the one with the lower time or number.
        ``"previous"``: the last frame at or before the event. ``"next"``: the first at or after it.
        Where a time or number occurs more than once, the first frame in recording order.
    tolerance
        How far apart the two may be, at most: in seconds, or in numbers. By default any distance.

    Returns
    -------
    DataFrame
        A copy of `events`, all its columns unchanged, with the columns ``matched_index`` (int64, the
        position, -1 where there is no frame), ``matched_number`` (Int64, the frame's number, <NA>
        where there is none) and ``matched_time`` (float64, the frame's time in seconds, NaN where
        there is none).

    Raises
    ------
    InvalidMetadataError
        No such column, or one that holds something else; or a column with the name of a result, since
        no column of the events is overwritten.
    ValueError
        An argument that is not among those above.
    """
    import pandas as pd

    _check("on", on, ("frame_time", "frame_number"))
    _check("method", method, ("nearest", "previous", "next"))
    limit = _limit(tolerance, on)
    taken = [name for name in _EVENT_RESULTS if name in events.columns]
    if taken:
        raise InvalidMetadataError(
            f"the events have columns {taken} already, where the frames found would go; rename or "
            "drop these first"
        )
    rows, wanted = _column(events, on if column is None else column, on, "events")
    positions = np.full(len(events), -1, np.int64)
    positions[rows] = match_positions(_of_frames(index, on), wanted, method, limit)
    there = positions >= 0
    numbers = np.zeros(len(events), np.int64)
    numbers[there] = index.frame_number[positions[there]]
    result = events.copy()
    result["matched_index"] = positions
    result["matched_number"] = pd.arrays.IntegerArray(numbers, ~there)
    result["matched_time"] = np.append(index.frame_time, np.nan)[positions]
    return result


def _of_frames(index: FrameIndex, on: str) -> Float64s | Int64s:
    if on == "frame_time":
        return index.frame_time
    return index.frame_number if on == "frame_number" else np.arange(len(index), dtype=np.int64)


def _column(table: pd.DataFrame, name: str, on: str, what: str) -> tuple[Int64s, Float64s | Int64s]:
    """The rows of which a column holds something, and that: seconds or whole numbers."""
    count = list(table.columns).count(name)
    if count != 1:
        raise InvalidMetadataError(
            f"the {what}: {count or 'no'} columns are called {name!r}, which is to tell where the "
            f"frames are; the columns are {list(table.columns)}"
        )
    series = table[name].infer_objects()
    rows = np.flatnonzero(series.notna().to_numpy())
    series = series.iloc[rows]
    by_time = on == "frame_time"
    if not len(rows):
        return rows, np.empty(0) if by_time else np.empty(0, np.int64)
    kind = series.dtype.kind
    if kind == "M" and by_time:
        return rows, _unix_seconds(series)
    if kind not in "iuf":
        asked = "seconds or datetimes" if by_time else "whole numbers"
        raise InvalidMetadataError(
            f"the {what}: column {name!r} has dtype {series.dtype}, but on={on!r} needs {asked}; "
            "convert it, as with pandas.to_numeric or pandas.to_datetime, or give another column"
        )
    values: NDArray[Any] = series.to_numpy(
        np.float64 if kind == "f" or by_time else series.dtype.type
    )
    if by_time:
        return rows, values
    if kind == "f":
        rows, values = rows[np.isfinite(values)], values[np.isfinite(values)]
        whole = (values == np.floor(values)) & (values >= -(2.0**63)) & (values < 2.0**63)
    else:
        whole = values < 2**63
    bad = np.flatnonzero(~whole)
    if len(bad):
        raise InvalidMetadataError(
            f"the {what}: column {name!r} holds what is no 64-bit integer in {len(bad)} rows, the first "
            f"of them row {rows[bad[0]]} with {values[bad[0]]}; round it, or join on='frame_time'"
        )
    return rows, values.astype(np.int64)


def _unix_seconds(series: pd.Series[pd.Timestamp]) -> Float64s:
    if series.dt.tz is not None:
        series = series.dt.tz_convert(None)
    stamps = series.to_numpy()
    # Apart, since nanoseconds since 1970 do not fit into float64.
    unit = _UNITS[np.datetime_data(stamps.dtype)[0]]
    seconds, parts = np.divmod(stamps.view(np.int64), unit)
    return np.asarray(seconds + parts / unit, np.float64)


def _check(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def _limit(tolerance: float | None, on: str) -> float:
    if tolerance is None:
        return math.inf
    try:
        good = tolerance >= 0
    except TypeError:
        good = False
    if not good:
        unit = "seconds" if on == "frame_time" else "frames"
        raise ValueError(f"tolerance must be a number of {unit}, at least 0, not {tolerance!r}")
    return tolerance
