"""An index that was saved as SQLite, and opening recordings with it."""

from __future__ import annotations

import multiprocessing
import operator
import pickle
import sqlite3
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import imgstore_zarr
from imgstore_zarr import (
    FrameIndex,
    InvalidMetadataError,
    RecordingAccessError,
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


@pytest.mark.parametrize("format", ["raw/zarr", "npy/dir"])
@pytest.mark.parametrize("path", ["no/such/folder/index", "a file/index", "a directory", "."])
def test_an_index_that_cannot_be_saved(
    record: Record, tmp_path: Path, format: str, path: str
) -> None:
    (tmp_path / "a directory").mkdir()
    (tmp_path / "a file").touch()
    store = imgstore_zarr.open(record(IMAGES, format=format))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RecordingAccessError, match=r"give a file in a directory that is there"):
        store.save_index(tmp_path / path)
    with pytest.raises(RecordingAccessError, match="/ is a directory"):
        store.save_index("/")
    assert sorted(tmp_path.rglob("*")) == before
    assert sorted(tmp_path.parent.glob(".new-*")) == []


def test_a_writer_whose_index_cannot_be_saved(tmp_path: Path) -> None:
    writer = imgstore_zarr.create(tmp_path / "r", "npy", (8, 10))
    writer.add_image(IMAGES[0], 3, 0.0)
    (tmp_path / "r" / ".index.sqlite").mkdir()
    with pytest.raises(RecordingAccessError, match=r"r/\.index\.sqlite is a directory"):
        writer.close(save_index=True)
    assert sorted((tmp_path / "r").glob(".new-*")) == []
    assert imgstore_zarr.open(tmp_path / "r").get_image(3)[1] == (3, 0.0)


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


LAYOUTS = ["raw/zarr", "avc1/mp4", "png/dir"]
FLAT = np.repeat(np.arange(20, 240, 20).astype(np.uint8), 256).reshape(11, 16, 16)


def other_index(path: Path) -> tuple[FrameIndex, list[int]]:
    """An index that is not the one on storage, and the frame there of each of its positions."""
    index = imgstore_zarr.open(path).index
    if imgstore_zarr.open(path).info.layout == "zarr":
        return index.with_numbers(list(range(110, 99, -1))), list(range(11))
    # The recording without its first chunk.
    own = range(4, 11)
    numbers = [100 + i for i in own]
    return FrameIndex(numbers, index.frame_time[4:], [0, 4], [1, 2]), list(own)


def frame_of(image: Any) -> int:
    """Which of the frames of FLAT an image is, also after it was compressed."""
    return int(np.argmin(np.abs(np.arange(20, 240, 20) - image.mean())))


@pytest.mark.parametrize("format", LAYOUTS)
def test_a_store_takes_its_index_along(record: Record, format: str) -> None:
    path = record(FLAT, format=format)
    index, frames = other_index(path)
    store = imgstore_zarr.open(path, index=index)
    store.get_image(frame_index=2)
    again = pickle.loads(pickle.dumps(store))
    assert again.index == index
    assert not again.index.frame_number.flags.writeable
    assert again.frame_number == index.frame_number[2]
    for position in (3, 4):
        image, (number, _) = again.get_next_image()
        assert (frame_of(image), number) == (frames[position], index.frame_number[position])
    assert [frame_of(image) for image, _ in again] == frames
    assert pickle.loads(pickle.dumps(again)).index == index


def test_a_store_takes_its_index_to_another_process(record: Record) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        for format in LAYOUTS:
            path = record(FLAT, format=format)
            index, frames = other_index(path)
            store = imgstore_zarr.open(path, index=index)
            store.get_image(frame_index=4)
            image, (number, _) = pool.submit(
                operator.methodcaller("get_next_image"), store
            ).result()
            assert (frame_of(image), number) == (frames[5], index.frame_number[5]), format


@pytest.mark.parametrize("format", LAYOUTS)
def test_renumbering_a_store_with_an_index(record: Record, format: str) -> None:
    numbers = [9, 3, 4, 1, 7, 8, 0, 5, 6, 2, 11]
    extra = {i: {"was": number} for i, number in enumerate(numbers)}
    path = record(FLAT, format=format, frame_number=numbers, extra=extra)
    own = imgstore_zarr.open(path).index
    store = imgstore_zarr.open(path, index=own)
    store.get_image(0)
    store.reindex()
    for opened in (store, pickle.loads(pickle.dumps(store))):
        assert opened.index.frame_number.tolist() == [*range(-6, 0), 0, 5, 6, 2, 11]
        image, (number, _) = opened.get_next_image()
        assert (frame_of(image), number) == (7, 5)
        table = opened.get_extra_data()
        assert table is not None
        assert table["frame_number"].tolist() == [*range(-6, 0), 0, 5, 6, 2, 11]


@pytest.mark.parametrize("format", LAYOUTS)
def test_an_index_of_somebody_else_renumbers_nothing(record: Record, format: str) -> None:
    path = record(FLAT, format=format, extra={7: {"a": 1}})
    index, _ = other_index(path)
    numbers = index.frame_number.copy()
    numbers[3] = 0
    store = imgstore_zarr.open(path, index=index.with_numbers(numbers))
    with pytest.raises(InvalidMetadataError, match="open it without one to renumber"):
        store.reindex()
    assert imgstore_zarr.open(path).index.frame_number.tolist() == list(range(11))


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
