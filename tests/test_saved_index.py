"""An index that was saved as SQLite, and opening recordings with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import imgstore_zarr
from imgstore_zarr import (
    FrameIndex,
    InvalidMetadataError,
    RecordingNotFoundError,
    UnsupportedVersionError,
)
from tests.conftest import Record
from tests.test_motif import motif

IMAGES = np.random.default_rng(0).integers(0, 255, (11, 8, 10), np.uint8)
NUMBERS = [5, 3, 3, 9, 2**62, -7, 0, 1, 2, 8, 4]


def test_what_was_saved_is_loaded(record: Record, tmp_path: Path) -> None:
    path = record(IMAGES, frame_number=NUMBERS)
    store = imgstore_zarr.open(path)
    store.save_index(tmp_path / "index")
    assert imgstore_zarr.load_index(tmp_path / "index") == store.index


@pytest.mark.parametrize("numbers", [[3, 4, 9], [0]], ids=str)
def test_chunks_with_other_numbers(tmp_path: Path, numbers: list[int]) -> None:
    from imgstore_zarr.sqlite_index import save_sqlite

    starts = [0, 2, 7][: len(numbers)]
    times = [np.nan, *(float(i) for i in range(1, 11))]
    index = FrameIndex(NUMBERS, times, starts, numbers)
    save_sqlite(index, tmp_path / "index")
    assert imgstore_zarr.load_index(tmp_path / "index") == index


def test_an_empty_index(tmp_path: Path) -> None:
    from imgstore_zarr.sqlite_index import save_sqlite

    save_sqlite(FrameIndex([], []), tmp_path / "index")
    assert len(imgstore_zarr.load_index(tmp_path / "index")) == 0


def test_opening_with_an_index_reads_no_other(tmp_path: Path) -> None:
    example = motif(tmp_path / "r")
    index = imgstore_zarr.open(tmp_path / "r").index
    for path in (tmp_path / "r").glob("*.npz"):
        path.write_bytes(b"not to be read")
    store = imgstore_zarr.open(tmp_path / "r", index=index)
    assert store.index is index
    assert store.frame_count == 50
    np.testing.assert_array_equal(store.get_image(example.numbers[44])[0], example.images[44])
    assert imgstore_zarr.new_for_filename(str(tmp_path / "r"), index=index).frame_count == 50


def test_opening_a_zarr_recording_with_an_index(record: Record) -> None:
    path = record(IMAGES)
    index = imgstore_zarr.open(path).index
    for column in ("frame_number", "frame_time"):
        for chunk in (path / column / "c").iterdir():
            chunk.unlink()
    store = imgstore_zarr.open(path, index=index)
    np.testing.assert_array_equal(store.frames[...], IMAGES)


def test_an_index_of_another_recording(record: Record) -> None:
    path = record(IMAGES)
    other = imgstore_zarr.open(record(IMAGES[:5])).index
    with pytest.raises(InvalidMetadataError, match="5 frames, the recording 11"):
        imgstore_zarr.open(path, index=other)


@pytest.mark.parametrize("index", ["index.sqlite", {"frame_number": []}, 7], ids=str)
def test_something_else_as_index(record: Record, index: Any) -> None:
    with pytest.raises(TypeError, match="must be a FrameIndex"):
        imgstore_zarr.open(record(IMAGES), index=index)


def sql(*statements: str) -> Callable[[Path], None]:
    def execute(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return execute


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda path: path.unlink(), RecordingNotFoundError),
        (lambda path: path.write_bytes(b""), InvalidMetadataError),
        (lambda path: path.write_bytes(b"no index" * 200), InvalidMetadataError),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), InvalidMetadataError),
        (sql("UPDATE index_information SET value = '2'"), UnsupportedVersionError),
        (sql("DELETE FROM index_information"), UnsupportedVersionError),
        (sql("DROP TABLE frames"), InvalidMetadataError),
        (sql("DELETE FROM frames WHERE frame_idx = 1"), InvalidMetadataError),
        (sql("UPDATE frames SET chunk = 0"), InvalidMetadataError),
        (sql("UPDATE frames SET frame_number = NULL"), InvalidMetadataError),
        (sql("UPDATE frames SET frame_number = 'one' WHERE rowid = 3"), InvalidMetadataError),
        (sql("UPDATE frames SET frame_number = 1.5 WHERE rowid = 3"), InvalidMetadataError),
        (sql("UPDATE frames SET frame_time = 'now' WHERE rowid = 3"), InvalidMetadataError),
        (sql("INSERT INTO frames VALUES (0, 0, 77, 1.0)"), InvalidMetadataError),
    ],
)
def test_a_damaged_index(
    record: Record, tmp_path: Path, damage: Callable[[Path], None], error: type[Exception]
) -> None:
    imgstore_zarr.open(record(IMAGES, frame_number=NUMBERS)).save_index(tmp_path / "index")
    damage(tmp_path / "index")
    with pytest.raises(error, match=str(tmp_path / "index")):
        imgstore_zarr.load_index(tmp_path / "index")
