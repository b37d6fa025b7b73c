"""Tables of frames and of extra data, as CSV and as Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imgstore_zarr.conversion_source import Source
from imgstore_zarr.errors import (
    InvalidMetadataError,
    MissingDependencyError,
    UnsupportedFormatError,
)
from imgstore_zarr.extra import RecordEncoder
from imgstore_zarr.index import FrameIndex, Int64s
from imgstore_zarr.store import ImgStore
from imgstore_zarr.timeline import UNIX_TIMES

# Rows that are made and written at once.
_ROWS = 100_000


def frame_table(store: ImgStore, positions: Int64s) -> pd.DataFrame:
    """Return one row for each frame: its position, number and time, and the time where it was made.

    Returns
    -------
    DataFrame
        ``frame_index``, ``frame_number``, ``frame_time`` (seconds) and ``local_time`` (in the time zone
        of the recording; NaT where the frame time is no Unix time).
    """
    index = store.index
    times = index.frame_time[positions]
    dated = np.where((times >= UNIX_TIMES[0]) & (times < UNIX_TIMES[1]), times, np.nan)
    # More than microseconds are not in a float of this size.
    local = pd.to_datetime(pd.Series(dated), unit="s", utc=True).dt.round("us")
    return pd.DataFrame(
        {
            "frame_index": positions,
            "frame_number": index.frame_number[positions],
            "frame_time": times,
            "local_time": local.dt.tz_convert(store.info.timezone),
        }
    )


def with_local_text(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of frames with local times as ISO 8601 has them, empty where there is none."""
    text = table["local_time"].dt.strftime("%Y-%m-%dT%H:%M:%S.%f%z")
    return table.assign(local_time=text.str[:-2] + ":" + text.str[-2:])


def write_frames(store: ImgStore, positions: Int64s, path: Path) -> None:
    """Write the table of frames to a CSV or Parquet file."""
    if path.suffix == ".parquet":
        _write_parquet(frame_table(store, positions), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        for start, part in _parts(positions):
            frames = with_local_text(frame_table(store, part))
            frames.to_csv(file, index=False, header=start == 0, lineterminator="\n")


def _parts(positions: Int64s) -> Iterator[tuple[int, Int64s]]:
    for start in range(0, max(len(positions), 1), _ROWS):
        yield start, positions[start : start + _ROWS]


def extra_table(store: ImgStore, positions: Int64s | None) -> pd.DataFrame:
    """Return the records of extra data, of some frames or all.

    Raises
    ------
    InvalidMetadataError
        The recording has none.
    """
    if not store.has_extra_data:
        raise InvalidMetadataError(f"{store.filename} has no extra data")
    if positions is None:
        table = store.get_extra_data()
        return pd.DataFrame() if table is None else table
    index = store.index
    chosen = FrameIndex(index.frame_number[positions], index.frame_time[positions], [0])
    records = [
        record | {"frame_index": int(positions[record["frame_index"]])}
        for record in Source.of(store).records(positions, chosen)
        if record["frame_index"] >= 0
    ]
    return pd.DataFrame(records)


def write_extra(table: pd.DataFrame, path: Path) -> None:
    """Write records of extra data to a CSV or Parquet file."""
    if path.suffix == ".parquet":
        _write_parquet(table, path)
        return
    nested = [name for name in table.columns if table[name].map(_is_nested).any()]
    # As in the recording, not as Python prints it.
    texts = {name: table[name].map(_as_json) for name in nested}
    table.assign(**texts).to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | dict | tuple | np.ndarray)


def _as_json(value: Any) -> Any:
    return json.dumps(value, cls=RecordEncoder) if _is_nested(value) else value


def _write_parquet(table: pd.DataFrame, path: Path) -> None:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet files need pyarrow: pip install pyarrow; CSV files need nothing"
        ) from error
    try:
        table.to_parquet(path, engine="pyarrow", index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise UnsupportedFormatError(
            f"Parquet cannot hold these records ({', '.join(map(str, error.args))}); a CSV file can"
        ) from error
