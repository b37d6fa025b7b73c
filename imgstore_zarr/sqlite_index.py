"""The index as SQLite, in the form that imgstore saves and opens (``.index.sqlite``, version 1)."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import (
    InvalidMetadataError,
    RecordingAccessError,
    RecordingNotFoundError,
    UnsupportedFormatError,
    UnsupportedVersionError,
)
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.storage import Location

INDEX_FILE = ".index.sqlite"
INDEX_VERSION = "1"

_ROWS_AT_ONCE = 100_000

_TABLES = """
CREATE TABLE frames (chunk INTEGER, frame_idx INTEGER, frame_number INTEGER, frame_time REAL);
CREATE TABLE chunks (chunk INTEGER, chunk_path TEXT);
CREATE TABLE index_information (name TEXT, value TEXT);
CREATE TABLE summary (name TEXT, value REAL);
CREATE INDEX chunk_index ON frames (chunk, frame_idx);
"""


def index_file(location: Location, path: str | Path | None = None) -> Path:
    """Return where the index of a recording is saved: the path, or a file in the recording.

    Raises
    ------
    UnsupportedFormatError
        The recording is in no directory, and no path is given.
    """
    if path:
        return Path(path)
    if location.path is None:
        raise UnsupportedFormatError(f"{location.name} is in no directory; give a path")
    return location.path / INDEX_FILE


def save_sqlite(
    index: FrameIndex, path: Path, chunk_path: Callable[[int], str] = "{:06d}".format
) -> None:
    """Write an index; a file that is there is replaced once the new one is whole.

    Parameters
    ----------
    index
        What to write.
    path
        The file.
    chunk_path
        Says where the index of a chunk lies, without an ending.

    Raises
    ------
    RecordingAccessError
        The file cannot be written; nothing is left behind.
    """
    temporary = path.parent / f".new-{path.name}"
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a directory")
        temporary.unlink(missing_ok=True)
        _write(index, temporary, chunk_path)
        temporary.replace(path)
    except (sqlite3.Error, OSError) as error:
        raise RecordingAccessError(
            f"the index cannot be saved as {path} ({error}); give a file in a directory that is "
            "there and may be written to"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write(index: FrameIndex, path: Path, chunk_path: Callable[[int], str]) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(_TABLES)
        connection.execute("INSERT INTO index_information VALUES ('version', ?)", (INDEX_VERSION,))
        for chunk in index.chunks():
            rows = slice(chunk.start, chunk.stop)
            numbers, times = index.frame_number[rows].tolist(), index.frame_time[rows].tolist()
            connection.executemany(
                "INSERT INTO frames VALUES (?, ?, ?, ?)",
                (
                    (chunk.number, i, number, time)
                    for i, (number, time) in enumerate(zip(numbers, times, strict=True))
                ),
            )
            row = chunk.number, chunk_path(chunk.number)
            connection.execute("INSERT INTO chunks VALUES (?, ?)", row)
        if len(index):
            connection.executemany(
                "INSERT INTO summary VALUES (?, ?)",
                [
                    ("frame_time_min", float(np.min(index.frame_time))),
                    ("frame_time_max", float(np.max(index.frame_time))),
                    ("frame_min", float(np.min(index.frame_number))),
                    ("frame_max", float(np.max(index.frame_number))),
                ],
            )


def load_sqlite(path: str | os.PathLike[str]) -> FrameIndex:
    """Read an index that was saved, by this package or by imgstore.

    Raises
    ------
    RecordingNotFoundError
        There is no such file.
    RecordingAccessError
        It may not be read.
    UnsupportedVersionError
        Its version is another than that which imgstore 0.4.0 writes.
    InvalidMetadataError
        It is damaged, or no index.
    """
    file = Path(path).absolute()
    try:
        file.open("rb").close()
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute(
                "SELECT value FROM index_information WHERE name = 'version'"
            ).fetchone()
            if row is None or row[0] != INDEX_VERSION:
                raise UnsupportedVersionError(
                    f"{path} is an index of version {row and row[0]!r}; {INDEX_VERSION!r} is read"
                )
            return _from_rows(
                connection.execute(
                    "SELECT chunk, frame_idx, frame_number, frame_time FROM frames ORDER BY rowid"
                )
            )
    except FileNotFoundError as error:
        raise RecordingNotFoundError(f"there is no saved index {path}") from error
    except PermissionError as error:
        raise RecordingAccessError(
            f"the saved index {path} may not be read; check its permissions"
        ) from error
    except UnsupportedVersionError:
        raise
    except (sqlite3.Error, OSError, OverflowError, TypeError, ValueError) as error:
        raise InvalidMetadataError(
            f"the saved index {path} is damaged or no index ({type(error).__name__}: {error}); "
            "save_index() of the recording writes it anew"
        ) from error


def _from_rows(cursor: sqlite3.Cursor) -> FrameIndex:
    places, numbers, times = [], [], []
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        chunk, place, number, time = zip(*rows, strict=True)
        places.append(np.array([chunk, place], np.int64))
        numbers.append(_integers(number))
        # SQLite has no NaN: it comes back as None.
        times.append(np.array(time, np.float64))
    if not numbers:
        return FrameIndex(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))
    chunks, inside = np.concatenate(places, axis=1)
    starts = np.flatnonzero(np.diff(chunks, prepend=chunks[0] - 1))
    lengths = np.diff(starts, append=len(chunks))
    if not np.array_equal(inside, np.arange(len(inside)) - np.repeat(starts, lengths)):
        raise ValueError("the frames of a chunk are not in order")
    if len(np.unique(chunks[starts])) != len(starts):
        raise ValueError("the frames of a chunk are not together")
    return FrameIndex(np.concatenate(numbers), np.concatenate(times), starts, chunks[starts])


def _integers(values: tuple[object, ...]) -> NDArray[np.int64]:
    column = np.array(values)
    if column.dtype.kind != "i":
        raise ValueError("a frame number is no integer")
    return column.astype(np.int64)
