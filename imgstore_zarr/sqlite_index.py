"""The index as SQLite, in the form that imgstore saves and opens (``.index.sqlite``, version 1)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from imgstore_zarr.index import FrameIndex

INDEX_FILE = ".index.sqlite"
INDEX_VERSION = "1"

_TABLES = """
CREATE TABLE frames (chunk INTEGER, frame_idx INTEGER, frame_number INTEGER, frame_time REAL);
CREATE TABLE chunks (chunk INTEGER, chunk_path TEXT);
CREATE TABLE index_information (name TEXT, value TEXT);
CREATE TABLE summary (name TEXT, value REAL);
CREATE INDEX chunk_index ON frames (chunk, frame_idx);
"""


def save_sqlite(index: FrameIndex, path: Path, root: Path | None = None) -> None:
    """Write an index; a file that is there is replaced once the new one is whole.

    Parameters
    ----------
    index
        What to write.
    path
        The file.
    root
        The recording; the paths of its chunks are made with it.
    """
    temporary = path.with_name(f".new-{path.name}")
    temporary.unlink(missing_ok=True)
    with closing(sqlite3.connect(temporary)) as connection, connection:
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
            chunk_path = (
                f"{chunk.number:06d}" if root is None else str(root / f"{chunk.number:06d}")
            )
            connection.execute("INSERT INTO chunks VALUES (?, ?)", (chunk.number, chunk_path))
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
    temporary.replace(path)
