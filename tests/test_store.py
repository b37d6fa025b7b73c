"""ImgStore and ImgStoreWriter: the interface of imgstore, on small recordings."""

from __future__ import annotations

import datetime as dt
import math
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

import imgstore_zarr
from imgstore_zarr import (
    EndOfRecordingError,
    FrameMismatchError,
    FrameNotFoundError,
    ImgStore,
    ImgStoreError,
    ImgStoreWriter,
    InvalidMetadataError,
    RecordingExistsError,
    RecordingNotFoundError,
    UnsupportedFormatError,
)

Record = Callable[..., Path]

IMAGES = np.random.default_rng(5).integers(0, 256, (11, 8, 10), np.uint8)
# Starts anywhere, skips, repeats, goes back.
NUMBERS = [7, 8, 12, 12, 3, 13, 14, -2, 20, 7, 21]
TIMES = [1.5e9 + t for t in (0, 0.25, 0.5, 0.75, 1.75, 2, 2.5, 2.75, 3, 3.5, 4)]


@pytest.fixture
def path(record: Record) -> Path:
    return record(IMAGES, frame_number=NUMBERS, frame_time=TIMES, metadata={"rig": {"name": "a"}})


@pytest.fixture
def store(path: Path) -> ImgStore:
    return imgstore_zarr.open(path)


def check(got: tuple[NDArray[Any], tuple[int, float]], position: int) -> None:
    image, (number, time) = got
    np.testing.assert_array_equal(image, IMAGES[position])
    assert (number, time) == (NUMBERS[position], TIMES[position])
    assert type(number) is int
    assert type(time) is float


# What a recording says of itself.


def test_properties(store: ImgStore, path: Path) -> None:
    assert len(store) == store.frame_count == 11
    assert (store.frame_min, store.frame_max) == (-2, 21)
    assert (store.frame_time_min, store.frame_time_max) == (1.5e9, 1.5e9 + 4)
    assert store.duration == 4
    assert store.image_shape == (8, 10)
    assert store.dtype == np.uint8
    assert store.chunks == [0, 1, 2]
    assert store.format == "raw/zarr"
    assert store.encoding is None
    assert store.lossless
    assert store.mode == "r"
    assert store.user_metadata == {"rig": {"name": "a"}}
    assert store.filename == str(path)
    assert store.full_path == str(path / "metadata.yaml")
    assert Path(store.full_path).is_file()
    assert math.isnan(store.frame_number)
    assert uuid.UUID(store.uuid).hex == store.uuid
    assert store.get_frame_metadata() == {"frame_number": NUMBERS, "frame_time": TIMES}
    assert store.has_extra_data is False
    assert store.get_extra_data() is None
    assert store.find_extra_data_files() == []


def test_when_it_was_made(record: Record) -> None:
    before = dt.datetime.now(dt.UTC)
    store = imgstore_zarr.open(record(IMAGES))
    created, timezone = store.created
    assert created.utcoffset() == dt.timedelta(0)
    assert before - dt.timedelta(seconds=1) <= created <= dt.datetime.now(dt.UTC)
    there = store.convert_frame_time_to_datetime(1.7e9)
    assert there == dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)
    assert there.tzinfo == timezone
    tokyo = dt.timezone(dt.timedelta(hours=9))
    assert store.convert_frame_time_to_datetime(1.7e9, tz=tokyo).hour == 7


def test_reading_and_writing_agree_on_what_it_is(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "a", "png", (8, 10), np.uint16, metadata={"k": 1}) as w:
        w.add_image(IMAGES[0].astype(np.uint16), 0, 0.0)
    store = imgstore_zarr.open(tmp_path / "a")
    for name in ("uuid", "created", "format", "dtype", "image_shape", "full_path", "filename"):
        assert getattr(w, name) == getattr(store, name), name
    assert w.user_metadata == store.user_metadata == {"k": 1}
    assert store.format == "zstd/zarr"


def test_a_recording_is_opened_by_its_files_too(path: Path) -> None:
    for place in (path, str(path), path / "metadata.yaml", path / "zarr.json", path.as_uri()):
        with imgstore_zarr.open(place) as store:
            assert store.filename == str(path)


def test_user_metadata_cannot_be_changed_by_its_readers(store: ImgStore) -> None:
    store.user_metadata["rig"] = None
    assert store.user_metadata == {"rig": {"name": "a"}}


def test_opening_and_reading_write_nothing(path: Path) -> None:
    def contents() -> dict[str, tuple[int, int]]:
        stats = {str(p): p.stat() for p in path.rglob("*")}
        return {name: (s.st_mtime_ns, s.st_size) for name, s in stats.items()}

    before = contents()
    with imgstore_zarr.open(path) as store:
        store.get_next_image()
        store.report()
        store.get_extra_data()
        np.asarray(store.to_xarray())
    assert contents() == before


def test_representations(store: ImgStore, path: Path) -> None:
    text = repr(store)
    assert text.startswith(f"<ImgStore {path}>")
    assert "11 of 8 x 10 uint8" in text
    assert "-2 .. 21" in text
    assert "zarr layout" in text


def test_html_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "<b>mice & men</b>"
    with imgstore_zarr.create(path, "npy", (4, 4)) as writer:
        writer.add_image(np.zeros((4, 4), np.uint8), 0, 0.0)
    html = imgstore_zarr.open(path)._repr_html_()
    assert "&lt;b&gt;mice &amp; men&lt;" in html
    assert "mice & men" not in html
    assert "<table>" in html


# The cursor.


def test_every_image_in_turn_then_the_end(store: ImgStore) -> None:
    for position in range(11):
        assert store.get_next_framenumber() == NUMBERS[position]
        check(store.get_next_image(), position)
        assert store.frame_number == NUMBERS[position]
    for _ in range(2):
        with pytest.raises(EndOfRecordingError, match=r"position 10"):
            store.get_next_image()
        with pytest.raises(EOFError):
            store.get_next_framenumber()
    check(store.get_image(8), 1)
    check(store.get_next_image(), 2)


def test_asking_for_the_next_number_does_not_move(store: ImgStore) -> None:
    assert [store.get_next_framenumber() for _ in range(3)] == [7, 7, 7]
    assert math.isnan(store.frame_number)
    check(store.get_next_image(), 0)


@pytest.mark.parametrize(
    ("seek", "position"),
    [
        (lambda s: s.get_image(14), 6),
        (lambda s: s.get_image(None, frame_index=3), 3),
        (lambda s: s.get_nearest_image(1.5e9 + 1.7), 4),
        (lambda s: s.get_image(9, exact_only=False), 1),
    ],
)
def test_the_next_image_is_the_one_after_the_last(
    store: ImgStore, seek: Callable[[ImgStore], Any], position: int
) -> None:
    check(seek(store), position)
    assert store.frame_number == NUMBERS[position]
    assert store.get_next_framenumber() == NUMBERS[position + 1]
    check(store.get_next_image(), position + 1)


def test_what_is_no_number_and_no_time_is_not_found(store: ImgStore) -> None:
    nothing: Any = "x"
    for exact in (True, False):
        with pytest.raises(FrameNotFoundError, match="'x'"):
            store.get_image(nothing, exact_only=exact)
    with pytest.raises(FrameNotFoundError, match="'x'"):
        store.get_nearest_image(nothing)
    with pytest.raises(FrameNotFoundError, match="'x'"):
        store.get_image(frame_index=nothing)


def test_a_frame_that_is_not_found_leaves_the_cursor(store: ImgStore) -> None:
    store.get_image(12)
    with pytest.raises(FrameNotFoundError):
        store.get_image(10_000)
    with pytest.raises(FrameNotFoundError):
        store.get_image(frame_index=11)
    assert store.frame_number == 12
    check(store.get_next_image(), 3)


def test_a_frame_that_cannot_be_read_leaves_the_cursor(store: ImgStore, path: Path) -> None:
    check(store.get_image(frame_index=1), 1)
    (path / "image" / "c" / "1" / "0" / "0").unlink()
    for _ in range(2):
        with pytest.raises(OSError, match="chunk 1"):
            store.get_image(frame_index=5)
    assert store.frame_number == 8
    check(store.get_next_image(), 2)


def test_iteration_leaves_the_cursor(store: ImgStore) -> None:
    check(store.get_image(14), 6)
    for _ in range(2):
        seen = 0
        for got in store:
            check(got, seen)
            seen += 1
        assert seen == 11
    assert store.frame_number == 14
    check(store.get_next_image(), 7)


# Finding frames.


@pytest.mark.parametrize("kind", [int, np.int64, np.int32, float, np.float64])
def test_by_number_of_any_kind(store: ImgStore, kind: Callable[[int], Any]) -> None:
    for number in set(NUMBERS):
        check(store.get_image(kind(number)), NUMBERS.index(number))
    check(store.get_image(np.uint16(21)), 10)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [int, float, np.int64, np.uint8, np.float64])
def test_by_position_of_any_kind(store: ImgStore, kind: Callable[[int], Any]) -> None:
    for position in range(11):
        check(store.get_image(frame_index=kind(position)), position)
        # The position counts, whatever number is given beside it.
        check(store.get_image(10_000, frame_index=kind(position)), position)


@pytest.mark.parametrize("number", [9, 22, -1, 12.5, math.nan, 2**63, -(2**70)])
@pytest.mark.parametrize("error", [FrameNotFoundError, ValueError, KeyError])
def test_numbers_that_are_not_there(store: ImgStore, number: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"{store.filename}: no frame has the number"):
        store.get_image(number)


@pytest.mark.parametrize("position", [11, -1, 2**70, 1.5, math.inf, "1"])
@pytest.mark.parametrize("error", [ValueError, KeyError])
def test_positions_that_are_not_there(
    store: ImgStore, position: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="position"):
        store.get_image(frame_index=position)


def test_a_number_or_a_position_is_needed(store: ImgStore) -> None:
    with pytest.raises(FrameNotFoundError, match="frame_number or a frame_index"):
        store.get_image()


@pytest.mark.parametrize("key", [-100, -1, 5, 9, 10, 11, 13.4, 17, 18, 1000, np.int64(17)])
def test_the_nearest_number(store: ImgStore, key: float) -> None:
    position = min(range(11), key=lambda i: abs(NUMBERS[i] - key))
    check(store.get_image(key, exact_only=False), position)  # type: ignore[arg-type]


@pytest.mark.parametrize("offset", [-1e9, 0.0, 0.1, 0.125, 0.3, 1.25, 3.24, 3.9, 1e9])
def test_the_nearest_time(store: ImgStore, offset: float) -> None:
    position = min(range(11), key=lambda i: abs(TIMES[i] - (1.5e9 + offset)))
    check(store.get_nearest_image(1.5e9 + offset), position)


def test_no_time_is_near_nan(store: ImgStore) -> None:
    with pytest.raises(FrameNotFoundError, match="nan"):
        store.get_nearest_image(math.nan)


def test_frames_are_an_array(store: ImgStore) -> None:
    assert store.frames.shape == IMAGES.shape
    np.testing.assert_array_equal(store.frames[...], IMAGES)
    np.testing.assert_array_equal(
        store.frames[9:2:-2, 1:7:3, [4, 0]], IMAGES[9:2:-2, 1:7:3, [4, 0]]
    )
    assert store.get_next_framenumber() == 7


def test_an_empty_recording(record: Record) -> None:
    store = imgstore_zarr.open(record(IMAGES[:0]))
    assert len(store) == store.frame_count == 0
    assert math.isnan(store.frame_min)
    assert math.isnan(store.frame_max)
    assert (store.frame_time_min, store.frame_time_max, store.duration) == (0, 0, 0)
    assert store.chunks == []
    assert list(store) == []
    assert store.frames[...].shape == (0, 8, 10)
    assert np.asarray(store.to_xarray()).shape == (0, 8, 10)
    assert store.report().frame_count == 0
    repr(store)
    with pytest.raises(EndOfRecordingError):
        store.get_next_image()
    with pytest.raises(FrameNotFoundError):
        store.get_image(0)
    with pytest.raises(FrameNotFoundError):
        store.get_image(0, exact_only=False)
    with pytest.raises(FrameNotFoundError):
        store.get_nearest_image(0.0)


def test_closing_releases_and_a_later_read_opens_again(store: ImgStore) -> None:
    store.get_next_image()
    store.close()
    store.close()
    check(store.get_next_image(), 1)


# Other processes and threads.


def test_a_store_is_pickled_with_its_cursor(store: ImgStore) -> None:
    check(store.get_image(14), 6)
    data = pickle.dumps(store)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert again.frame_number == 14
    assert again.filename == store.filename
    check(again.get_next_image(), 7)
    check(store.get_next_image(), 7)
    fresh = pickle.loads(pickle.dumps(imgstore_zarr.open(store.filename)))
    check(fresh.get_next_image(), 0)


def test_a_pickled_store_goes_on_not_decoding(record: Record) -> None:
    store = imgstore_zarr.open(record(IMAGES, encoding="cv_bayerrg"))
    store.disable_decoding()
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.get_next_image()[0], IMAGES[0])


def test_a_pickled_store_says_when_the_recording_is_gone(store: ImgStore, path: Path) -> None:
    data = pickle.dumps(store)
    path.rename(path.with_name("elsewhere"))
    again = pickle.loads(data)
    with pytest.raises((ImgStoreError, FileNotFoundError)):
        again.get_next_image()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks as Linux does")
def test_a_forked_process_reads_the_right_frames(path: Path) -> None:
    """In a process of its own, since threads of other tests do not survive a fork."""
    script = """if True:
        import os, sys
        import imgstore_zarr
        store = imgstore_zarr.open(sys.argv[1])
        expected = store.frames[...]
        store.get_image(frame_index=3)
        children = []
        for child in range(3):
            pid = os.fork()
            if pid == 0:
                right = 0
                for i in range(300):
                    position = (i * 7 + child) % len(store)
                    image, _ = store.get_image(frame_index=position)
                    right += bool((image == expected[position]).all())
                os._exit(0 if right == 300 else 1)
            children.append(pid)
        for i in range(300):
            image, _ = store.get_image(frame_index=i % len(store))
            assert (image == expected[i % len(store)]).all()
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print(*codes)
    """
    result = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["0", "0", "0"]


@pytest.mark.parametrize("format", ["raw/zarr", "zstd/zarr"])
def test_many_threads_read_at_once(record: Record, rng: np.random.Generator, format: str) -> None:
    images = rng.integers(0, 256, (60, 32, 32), np.uint8)
    store = imgstore_zarr.open(record(images, format=format, chunksize=7))

    def read(seed: int) -> int:
        wrong = 0
        for positions in np.random.default_rng(seed).integers(0, 60, (80, 3)):
            wrong += not np.array_equal(store.frames[positions], images[positions])
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(8))) == [0] * 8


# Encodings, and formats that store something else than they are given.


def test_bayer_is_decoded(record: Record) -> None:
    path = record(IMAGES, encoding="cv_bayerrg")
    expected = np.stack([cv2.cvtColor(image, cv2.COLOR_BayerRG2BGR) for image in IMAGES])
    with imgstore_zarr.open(path) as store:
        assert store.encoding == "cv_bayerrg"
        assert store.image_shape == (8, 10, 3)
        np.testing.assert_array_equal(store.get_next_image()[0], expected[0])
        np.testing.assert_array_equal(store.frames[2:5, 1:4], expected[2:5, 1:4])
        assert store.to_xarray().dims == ("frame", "y", "x", "channel")
        np.testing.assert_array_equal(np.asarray(store.to_xarray()), expected)
        store.disable_decoding()
        np.testing.assert_array_equal(store.get_next_image()[0], IMAGES[1])
        np.testing.assert_array_equal(store.frames[...], IMAGES)
        np.testing.assert_array_equal(np.asarray(store.to_xarray()), IMAGES)
    np.testing.assert_array_equal(imgstore_zarr.extract_only_frame(str(path), 4), IMAGES[4])


@pytest.mark.parametrize("format", ["png+color", "tif+color", "bmp+color"])
def test_color_formats_store_what_the_encoding_means(record: Record, format: str) -> None:
    path = record(IMAGES, format=format, encoding="cv_bayergb")
    expected = np.stack([cv2.cvtColor(image, cv2.COLOR_BayerGB2BGR) for image in IMAGES])
    store = imgstore_zarr.open(path)
    assert store.encoding is None
    assert store.image_shape == (8, 10, 3)
    np.testing.assert_array_equal(store.frames[...], expected)
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["image"][...], expected)  # type: ignore[index]
    store.disable_decoding()
    np.testing.assert_array_equal(store.get_next_image()[0], expected[0])


@pytest.mark.parametrize(
    ("format", "images", "stored", "handed_out"),
    [
        ("ppm", IMAGES, np.stack([IMAGES] * 3, axis=-1), IMAGES),
        ("pgm", IMAGES, IMAGES, IMAGES),
    ],
    ids=["ppm", "pgm"],
)
def test_ppm_stores_color_and_pgm_gray(
    record: Record, format: str, images: Any, stored: Any, handed_out: Any
) -> None:
    path = record(images, format=format)
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["image"][...], stored)  # type: ignore[index]
    store = imgstore_zarr.open(path)
    np.testing.assert_array_equal(store.frames[...], handed_out)
    assert store.image_shape == handed_out.shape[1:]
    assert store.lossless


def test_color_given_to_pgm_becomes_gray(record: Record, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (3, 8, 10, 3), np.uint8)
    gray = np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in images])
    path = record(images, format="pgm")
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["image"][...], gray)  # type: ignore[index]
    store = imgstore_zarr.open(path)
    assert store.image_shape == (8, 10, 3)
    np.testing.assert_array_equal(store.frames[...], np.stack([gray] * 3, axis=-1))
    assert not store.lossless


# Renumbering and the index as a file.


def test_reindex(record: Record) -> None:
    numbers = [30, 31, 3, 4, 9, 0, 1, 1, 0x7FFFFFFFFFFFFFFF, 4, 2]
    extra: dict[int, dict[str, Any]] = {0: {"was": 30}, 5: {"was": 0}, 9: {"was": 4}}
    path = record(IMAGES, frame_number=numbers, extra=extra)
    store = imgstore_zarr.open(path)
    store.reindex()
    expected = [-5, -4, -3, -2, -1, *numbers[5:]]
    for opened in (store, imgstore_zarr.open(path)):
        assert opened.get_frame_metadata()["frame_number"] == expected
        np.testing.assert_array_equal(opened.get_image(-4)[0], IMAGES[1])
        table = opened.get_extra_data()
        assert table is not None
        assert table["was"].tolist() == [30, 0, 4]
        assert table["frame_index"].tolist() == [0, 5, 9]
        assert table["frame_number"].tolist() == [-5, 0, 4]
    group: Any = zarr.open_group(path, mode="r")
    assert group["frame_number"][...].tolist() == expected
    assert group["frame_number_before_reindex"][...].tolist() == numbers
    # Once more changes nothing, and the first numbers are kept.
    store.reindex()
    assert store.get_frame_metadata()["frame_number"] == expected
    group = zarr.open_group(path, mode="r")
    assert group["frame_number_before_reindex"][...].tolist() == numbers


@pytest.mark.parametrize("numbers", [[5, 6, 7], [0, 1, 0]], ids=["none", "two"])
def test_reindex_needs_exactly_one_zero(record: Record, numbers: list[int]) -> None:
    path = record(IMAGES[:3], frame_number=numbers)
    store = imgstore_zarr.open(path)
    with pytest.raises(ValueError, match="not exactly one frame has the number 0"):
        store.reindex()
    assert store.get_frame_metadata()["frame_number"] == numbers
    assert imgstore_zarr.open(path).get_frame_metadata()["frame_number"] == numbers


def check_sqlite(file: Path, root: Path) -> None:
    """The tables that imgstore 0.4.0 makes and reads."""
    with closing(sqlite3.connect(file)) as connection:

        def rows(query: str) -> list[tuple[Any, ...]]:
            return connection.execute(query).fetchall()

        columns = {
            name: [column[1:3] for column in rows(f"PRAGMA table_info({name})")]
            for (name,) in rows("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        assert columns == {
            "frames": [
                ("chunk", "INTEGER"),
                ("frame_idx", "INTEGER"),
                ("frame_number", "INTEGER"),
                ("frame_time", "REAL"),
            ],
            "chunks": [("chunk", "INTEGER"), ("chunk_path", "TEXT")],
            "index_information": [("name", "TEXT"), ("value", "TEXT")],
            "summary": [("name", "TEXT"), ("value", "REAL")],
        }
        assert rows("SELECT * FROM frames ORDER BY rowid") == [
            (i // 4, i % 4, NUMBERS[i], TIMES[i]) for i in range(11)
        ]
        assert rows("SELECT * FROM chunks ORDER BY rowid") == [
            (i, str(root / f"{i:06d}")) for i in range(3)
        ]
        assert rows("SELECT * FROM index_information") == [("version", "1")]
        assert dict(rows("SELECT * FROM summary")) == {
            "frame_time_min": 1.5e9,
            "frame_time_max": 1.5e9 + 4,
            "frame_min": -2,
            "frame_max": 21,
        }
        assert rows("SELECT name FROM sqlite_master WHERE type = 'index'") == [("chunk_index",)]


def test_the_index_as_sqlite(store: ImgStore, path: Path, tmp_path: Path) -> None:
    store.save_index()
    check_sqlite(path / ".index.sqlite", path)
    store.save_index(tmp_path / "other.sqlite")
    check_sqlite(tmp_path / "other.sqlite", path)
    (path / ".index.sqlite").write_bytes(b"old")
    store.close(save_index=True)
    check_sqlite(path / ".index.sqlite", path)
    assert not list(path.glob(".new-*"))


def test_the_index_is_saved_when_a_writer_closes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    writer = imgstore_zarr.create(path, "npy", (8, 10), chunksize=4)
    for image, number, time in zip(IMAGES, NUMBERS, TIMES, strict=True):
        writer.add_image(image, number, time)
    writer.close(save_index=True)
    check_sqlite(path / ".index.sqlite", path)


def test_the_index_of_an_empty_recording(record: Record) -> None:
    path = record(IMAGES[:0])
    imgstore_zarr.open(path).save_index()
    with closing(sqlite3.connect(path / ".index.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM frames").fetchall() == [(0,)]
        assert connection.execute("SELECT count(*) FROM chunks").fetchall() == [(0,)]


def test_a_recording_in_no_directory_has_no_file_for_its_index(tmp_path: Path) -> None:
    memory = MemoryStore()
    with imgstore_zarr.create(memory, "npy", (8, 10)) as writer:
        writer.add_image(IMAGES[0], 5, 1.0)
    store = imgstore_zarr.open(memory)
    assert store.full_path.endswith("/metadata.yaml")
    with pytest.raises(UnsupportedFormatError, match="give a path"):
        store.save_index()
    store.save_index(tmp_path / "index.sqlite")
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as connection:
        assert connection.execute("SELECT * FROM frames").fetchall() == [(0, 0, 5, 1.0)]


# xarray.


def test_as_a_dataarray(store: ImgStore, path: Path) -> None:
    array = store.to_xarray(index="frame_time", datetime=True)
    assert array.attrs["recording"] == str(path)
    assert array.attrs["uuid"] == store.uuid
    assert array.attrs["format"] == "raw/zarr"
    np.testing.assert_array_equal(array, IMAGES)
    np.testing.assert_array_equal(array.frame_number, NUMBERS)
    np.testing.assert_array_equal(array.sel(frame_time=TIMES[4]), IMAGES[4])
    np.testing.assert_array_equal(array.time, pd.to_datetime(TIMES, unit="s").to_numpy("M8[ns]"))


def test_dask_tasks_carry_a_place_and_no_frames(record: Record, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (200, 64, 64), np.uint8)
    path = record(images, chunksize=10)
    array = imgstore_zarr.open(path).to_xarray(chunks=10)
    assert array.chunks == ((10,) * 20, (64,), (64,))
    data = pickle.dumps(array.data)
    assert len(data) < 50_000
    again = pickle.loads(data)
    np.testing.assert_array_equal(again.compute(scheduler="threads"), images)


def test_as_a_datatree(record: Record) -> None:
    path = record(IMAGES, extra={1: {"volts": 2.5}, 4: {"volts": -1.0}})
    tree = imgstore_zarr.open(path).to_datatree()
    np.testing.assert_array_equal(tree["image"], IMAGES)
    assert tree["extra"]["volts"].dims == ("record",)
    assert tree["extra/volts"].to_numpy().tolist() == [2.5, -1.0]
    assert tree["extra/frame_index"].to_numpy().tolist() == [1, 4]
    without = imgstore_zarr.open(record(IMAGES)).to_datatree()
    assert list(without.children) == []


# Extra data.


def test_extra_data_come_back_as_pandas_would_have_them(tmp_path: Path) -> None:
    rows: list[tuple[int, dict[str, Any]]] = [
        (0, {"volts": 1.5, "count": 3, "name": "a", "on": True}),
        (0, {"volts": -2.0, "count": 4, "name": "", "on": False}),
        (2, {"volts": 1e300, "count": -(2**40), "name": "nai\u0308ve \U0001f42d", "on": True}),
        (5, {"volts": 0.1, "count": 2**53, "name": "b\0c", "on": False}),
    ]
    records = []
    with imgstore_zarr.create(tmp_path / "a", "npy", (8, 10), chunksize=2) as writer:
        for i, image in enumerate(IMAGES[:6]):
            writer.add_image(image, NUMBERS[i], TIMES[i])
            for position, fields in rows:
                if position == i:
                    writer.add_extra_data(**fields)
                    places = {"frame_time": TIMES[i], "frame_number": NUMBERS[i], "frame_index": i}
                    records.append({**fields, **places})
        writer.add_extra_data()
    store = imgstore_zarr.open(tmp_path / "a")
    assert store.has_extra_data
    assert store.find_extra_data_files()
    table = store.get_extra_data()
    assert table is not None
    pd.testing.assert_frame_equal(table, pd.DataFrame(records))


def test_extra_data_with_gaps_and_of_many_kinds(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"a": 1, "shape": [1, 2], "mixed": 1},
        {"a": None, "b": "x", "mixed": "text"},
        {"b": None, "deep": {"k": [None, 1.5]}, "mixed": 2.5},
        {"array": np.arange(3), "number": np.float32(0.5), "when": dt.date(2024, 2, 29)},
    ]
    with imgstore_zarr.create(tmp_path / "a", "npy", (8, 10)) as writer:
        writer.add_image(IMAGES[0], 5, 1.0)
        for row in rows:
            writer.add_extra_data(**row)
    plain = [*rows[:3], {"array": [0, 1, 2], "number": 0.5, "when": "2024-02-29"}]
    places = {"frame_time": 1.0, "frame_number": 5, "frame_index": 0}
    expected = pd.DataFrame([{**row, **places} for row in plain])
    table = imgstore_zarr.open(tmp_path / "a").get_extra_data()
    assert table is not None
    assert set(table.columns) == set(expected.columns)
    for name in expected.columns:
        for got, wanted in zip(table[name], expected[name], strict=True):
            if wanted is None or (isinstance(wanted, float) and math.isnan(wanted)):
                assert got is None or math.isnan(got), name
            else:
                assert got == wanted, name


def test_extra_data_that_json_cannot_hold(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "a", "npy", (8, 10)) as writer:
        writer.add_image(IMAGES[0], 0, 0.0)
        with pytest.raises(InvalidMetadataError, match="'handle'"):
            writer.add_extra_data(good=1, handle=object())
        writer.add_extra_data(good=2)
    table = imgstore_zarr.open(tmp_path / "a").get_extra_data()
    assert table is not None
    assert table["good"].tolist() == [2]


def test_zarr_extra_data_have_no_sample_rate(store: ImgStore) -> None:
    with pytest.raises(InvalidMetadataError, match="sample rate"):
        store.get_extra_data_samplerate()


# Writing.


def test_what_a_writer_says_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "a"
    writer = imgstore_zarr.create(path, "npy", (8, 10), chunksize=4)
    assert writer.mode == "w"
    assert (len(writer), writer.frame_count, writer.duration) == (0, 0, 0)
    assert math.isnan(writer.frame_number)
    assert math.isnan(writer.frame_min)
    assert writer.chunks == []
    for i, (number, time) in enumerate(zip(NUMBERS, TIMES, strict=True)):
        writer.add_image(IMAGES[i], number, time)
        assert len(writer) == writer.frame_count == i + 1
        assert (writer.frame_number, writer.frame_time) == (number, time)
        assert writer.frame_min == min(NUMBERS[: i + 1])
        assert writer.frame_max == max(NUMBERS[: i + 1])
        assert writer.duration == time - TIMES[0]
        assert writer.chunks == list(range((i + 1) // 4))
    assert writer.filename == str(path)
    assert writer.full_path == str(path / "metadata.yaml")
    assert "frames: 11, open" in repr(writer)
    writer.close()
    writer.close()
    assert "frames: 11, closed" in repr(writer)
    np.testing.assert_array_equal(imgstore_zarr.open(path).frames[...], IMAGES)


@pytest.mark.parametrize(
    ("image", "number", "time", "error"),
    [
        (IMAGES[0].T, 0, 0.0, FrameMismatchError),
        (IMAGES[:1], 0, 0.0, FrameMismatchError),
        (IMAGES[0].astype(np.uint16), 0, 0.0, FrameMismatchError),
        (IMAGES[0].astype(np.int8), 0, 0.0, FrameMismatchError),
        (IMAGES[0], 1.5, 0.0, InvalidMetadataError),
        (IMAGES[0], "1", 0.0, InvalidMetadataError),
        (IMAGES[0], None, 0.0, InvalidMetadataError),
        (IMAGES[0], 2**63, 0.0, InvalidMetadataError),
        (IMAGES[0], 0, math.inf, InvalidMetadataError),
        (IMAGES[0], 0, "now", InvalidMetadataError),
    ],
)
def test_what_is_refused_leaves_the_recording(
    tmp_path: Path, image: Any, number: Any, time: Any, error: type[Exception]
) -> None:
    with imgstore_zarr.create(tmp_path / "a", "npy", (8, 10)) as writer:
        writer.add_image(IMAGES[0], 4, 1.0)
        with pytest.raises(error, match="not written"):
            writer.add_image(image, number, time)
        assert (writer.frame_count, writer.frame_number, writer.frame_time) == (1, 4, 1.0)
        writer.add_image(IMAGES[1], np.uint8(200), np.float32(2.0))  # type: ignore[arg-type]
    store = imgstore_zarr.open(tmp_path / "a")
    np.testing.assert_array_equal(store.frames[...], IMAGES[:2])
    assert store.get_frame_metadata() == {"frame_number": [4, 200], "frame_time": [1.0, 2.0]}


def test_images_of_any_memory_order_and_byte_order(tmp_path: Path) -> None:
    images = IMAGES.astype(np.uint16) * 257
    with imgstore_zarr.create(tmp_path / "a", "zstd/zarr", (8, 10), np.uint16) as writer:
        writer.add_image(np.asfortranarray(images[0]), 0, 0.0)
        writer.add_image(images[1][::-1, ::-1], 1, 1.0)
        writer.add_image(images[2].astype(">u2"), 2, 2.0)
    expected = np.stack([images[0], images[1][::-1, ::-1], images[2]])
    np.testing.assert_array_equal(imgstore_zarr.open(tmp_path / "a").frames[...], expected)


def test_an_image_may_be_reused_by_the_caller(tmp_path: Path) -> None:
    buffer = np.empty((8, 10), np.uint8)
    with imgstore_zarr.create(
        tmp_path / "a", "npy", (8, 10), chunksize=8, inner_chunks=(4, 8, 10)
    ) as writer:
        for i, image in enumerate(IMAGES):
            buffer[...] = image
            writer.add_image(buffer, i, float(i))
    np.testing.assert_array_equal(imgstore_zarr.open(tmp_path / "a").frames[...], IMAGES)


def test_a_closed_writer_takes_nothing(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "a", "npy", (8, 10)) as writer:
        writer.add_image(IMAGES[0], 0, 0.0)
    acts: list[Callable[[], None]] = [
        lambda: writer.add_image(IMAGES[1], 1, 1.0),
        lambda: writer.add_extra_data(a=1),
        writer.flush,
        writer.empty,
    ]
    for act in acts:
        with pytest.raises(ImgStoreError, match="closed"):
            act()
    assert len(imgstore_zarr.open(tmp_path / "a")) == 1


def test_nothing_is_overwritten(path: Path) -> None:
    with pytest.raises(RecordingExistsError, match="never overwritten"):
        imgstore_zarr.create(path, "npy", (8, 10))
    with pytest.raises(FileExistsError):
        imgstore_zarr.create(path / "metadata.yaml", "npy", (8, 10))
    np.testing.assert_array_equal(imgstore_zarr.open(path).frames[...], IMAGES)


def test_a_writer_can_begin_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with imgstore_zarr.create(path, "npy", (8, 10), chunksize=4) as writer:
        for i in range(11):
            writer.add_image(IMAGES[i], i, float(i))
            writer.add_extra_data(first=i)
        writer.empty()
        assert (writer.frame_count, writer.duration, writer.chunks) == (0, 0, [])
        assert math.isnan(writer.frame_number)
        empty = imgstore_zarr.open(path)
        assert len(empty) == 0
        assert not empty.has_extra_data
        for i in range(6):
            writer.add_image(IMAGES[10 - i], 100 + i, 50.0 + i)
            writer.add_extra_data(second=i)
    store = imgstore_zarr.open(path)
    np.testing.assert_array_equal(store.frames[...], IMAGES[10:4:-1])
    assert store.get_frame_metadata()["frame_number"] == list(range(100, 106))
    assert store.chunks == [0, 1]
    table = store.get_extra_data()
    assert table is not None
    assert table["second"].tolist() == list(range(6))
    assert "first" not in table
    assert not (path / "image" / "c" / "2").exists()


def test_a_flush_is_visible_to_new_readers(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "a", "npy", (8, 10), chunksize=4) as writer:
        for i in range(11):
            writer.add_image(IMAGES[i], i, float(i))
            writer.flush()
            store = imgstore_zarr.open(tmp_path / "a")
            assert len(store) == i + 1
            np.testing.assert_array_equal(store.frames[...], IMAGES[: i + 1])


# The functions of imgstore.


def test_new_for_filename(path: Path) -> None:
    for store in (
        imgstore_zarr.new_for_filename(str(path)),
        imgstore_zarr.new_for_filename(str(path / "metadata.yaml"), mode="r"),
        imgstore_zarr.new_for_filename(None, basedir=str(path)),
    ):
        check(store.get_next_image(), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "a", "basedir": "a"}, "give one of them"),
        ({"path": None}, "give the path"),
        ({"path": ""}, "give the path"),
        ({"path": None, "basedir": "a/metadata.yaml"}, "basedir is the directory"),
        ({"path": "a", "mode": "w"}, "create"),
        ({"path": "a", "mode": "a"}, "'a'"),
        ({"path": "a/nothing"}, "does not exist"),
    ],
)
def test_new_for_filename_of_nothing(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        imgstore_zarr.new_for_filename(**arguments)


def test_what_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(RecordingNotFoundError, match=r"metadata\.yaml and zarr\.json"):
        imgstore_zarr.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        imgstore_zarr.open(tmp_path / "nothing")


@pytest.mark.parametrize("by", ["path", "basedir", "metadata.yaml"])
def test_new_for_format(tmp_path: Path, by: str) -> None:
    path = tmp_path / "a"
    place: dict[str, Any] = {
        "path": {"path": str(path)},
        "basedir": {"basedir": str(path), "mode": "w", "format": "npy"},
        "metadata.yaml": {"path": str(path / "metadata.yaml")},
    }[by]
    writer = imgstore_zarr.new_for_format(
        "npy", imgshape=(8, 10), imgdtype=np.uint8, chunksize=3, metadata={"a": 1}, **place
    )
    assert isinstance(writer, ImgStoreWriter)
    with writer:
        writer.add_image(IMAGES[0], 7, 1.0)
    store = imgstore_zarr.new_for_format("npy", str(path), mode="r")
    assert isinstance(store, ImgStore)
    np.testing.assert_array_equal(store.get_image(7)[0], IMAGES[0])
    assert store.user_metadata == {"a": 1}
    assert store.info.chunksize == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fmt": "npy", "path": "a", "basedir": "a"}, "give one of them"),
        ({"fmt": "npy"}, "give the path"),
        ({"fmt": "npy", "path": "a", "mode": "a"}, "'a'"),
        ({"fmt": "npy", "path": "a", "format": "png"}, "two formats"),
        ({"fmt": "vhs", "path": "a"}, r"'vhs'.*zstd/zarr"),
        ({"fmt": "npy", "path": "a", "tracking": 5}, "no option tracking"),
        ({"fmt": "npy", "path": "a", "imgshape": ()}, "imgshape"),
        ({"fmt": "npy", "path": "a", "imgshape": (0, 5)}, "imgshape"),
        ({"fmt": "npy", "path": "a", "imgdtype": "U5"}, "imgdtype"),
        ({"fmt": "npy", "path": "a", "chunksize": 0}, "chunksize"),
        ({"fmt": "npy", "path": "a", "encoding": "cv_what"}, "cv_what"),
        ({"fmt": "npy", "path": "a", "metadata": {"a": object()}}, r"metadata\['a'\]"),
    ],
)
def test_new_for_format_of_what_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        imgstore_zarr.new_for_format(**{"imgshape": (8, 10), **arguments})
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - nothing was begun


def test_extract_only_frame(path: Path) -> None:
    for position in (0, 3, 10):
        frame = imgstore_zarr.extract_only_frame(str(path / "metadata.yaml"), position)
        np.testing.assert_array_equal(frame, IMAGES[position])
    with pytest.raises(FrameNotFoundError):
        imgstore_zarr.extract_only_frame(str(path), 11)
    for column in ("frame_number", "frame_time"):
        shutil.rmtree(path / column / "c")
    np.testing.assert_array_equal(imgstore_zarr.extract_only_frame(path, 5), IMAGES[5])


def test_an_extracted_frame_is_not_decoded_from_its_encoding(record: Record) -> None:
    path = record(IMAGES, format="npy", encoding="cv_bayerrg")
    np.testing.assert_array_equal(imgstore_zarr.extract_only_frame(path, 5), IMAGES[5])
    # pgm is gray whatever it was given.
    color = np.repeat(IMAGES[..., None], 3, axis=-1)
    pgm = record(color, format="pgm")
    with imgstore_zarr.open(pgm) as store:
        store.disable_decoding()
        expected = store.get_image(frame_index=5)[0]
    np.testing.assert_array_equal(imgstore_zarr.extract_only_frame(pgm, 5), expected)
    assert expected.shape == color.shape[1:]


def test_gray_images_are_taken_by_colour_recordings(record: Record, tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "npy", (8, 10, 3)) as writer:
        writer.add_image(IMAGES[0], 0, 0.0)
        with pytest.raises(FrameMismatchError):
            writer.add_image(IMAGES[0].T, 1, 1.0)
    image, _ = imgstore_zarr.open(tmp_path / "r").get_image(0)
    np.testing.assert_array_equal(image, cv2.cvtColor(IMAGES[0], cv2.COLOR_GRAY2BGR))


def test_colour_images_are_refused_by_gray_recordings(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "npy", (8, 10)) as writer:
        with pytest.raises(FrameMismatchError, match=r"ensure_gray makes it gray"):
            writer.add_image(np.zeros((8, 10, 3), np.uint8), 0, 0.0)
        with pytest.raises(FrameMismatchError, match=r"not written$"):
            writer.add_image(np.zeros((8, 9), np.uint8), 0, 0.0)


FORMATS = ["raw/zarr", "npy/dir", "png/dir", "avc1/mp4", "mjpeg/avi"]


@pytest.mark.parametrize("format", FORMATS)
def test_frames_without_a_time(record: Record, tmp_path: Path, format: str) -> None:
    flat = np.repeat(np.arange(0, 200, 20).astype(np.uint8), 256).reshape(10, 16, 16)
    times = [None, math.nan, 12.0, np.float32("nan"), 10.0, None, 11.0, 13.0, None, None]
    kept = [math.nan if time is None else float(time) for time in times]
    store = imgstore_zarr.open(record(flat, format=format, frame_time=times))
    np.testing.assert_array_equal(store.index.frame_time, kept)
    assert (store.frame_time_min, store.frame_time_max, store.duration) == (10, 13, 3)
    assert store.get_nearest_image(12.2)[1] == (2, 12.0)
    for image, (number, _) in store:
        assert abs(image.mean() - 20 * number) < 3
    assert store.report().ok
    assert store.report().duration == 3
    times_of = np.asarray(store.to_xarray(datetime=True).time)
    np.testing.assert_array_equal(np.isnat(times_of), np.isnan(kept))
    store.save_index(tmp_path / "index")
    assert imgstore_zarr.load_index(tmp_path / "index") == store.index


def test_no_frame_has_a_time(record: Record) -> None:
    store = imgstore_zarr.open(record(IMAGES, frame_time=[None] * 11, extra={1: {"a": 2}}))
    assert np.isnan([store.frame_time_min, store.frame_time_max, store.duration]).all()
    with pytest.raises(FrameNotFoundError, match="none of the 11 frames is near 3"):
        store.get_nearest_image(3.0)
    repr(store)
    assert store.report().ok
    table = store.get_extra_data()
    assert table is not None
    assert (table["a"][0], table["frame_number"][0]) == (2, 1)
    assert math.isnan(table["frame_time"][0])


@pytest.mark.parametrize("shape", [(8, 10), (8, 10, 1), (8, 10, 3)], ids=str)
def test_gray_images_with_and_without_a_channel(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with imgstore_zarr.create(tmp_path / "r", "raw/zarr", shape) as writer:
        writer.add_image(IMAGES[0], 0, 0.0)
        writer.add_image(IMAGES[1][..., np.newaxis], 1, 1.0)
    store = imgstore_zarr.open(tmp_path / "r")
    for image, expected in zip(store.frames, IMAGES[:2], strict=True):
        assert image.shape == shape
        channels = image.reshape(8, 10, -1)
        for i in range(channels.shape[2]):
            np.testing.assert_array_equal(channels[..., i], expected)


def test_only_video_takes_images_that_are_cut(tmp_path: Path) -> None:
    for format in ("raw/zarr", "npy/dir", "avc1/mp4"):
        with imgstore_zarr.create(tmp_path / format, format, (17, 21)) as writer:
            for size in [(16, 21), (17, 20), (14, 20)] + [(16, 20)] * (format != "avc1/mp4"):
                with pytest.raises(FrameMismatchError, match="not written"):
                    writer.add_image(np.zeros(size, np.uint8), 0, 0.0)


def test_dates_in_metadata_become_text(record: Record) -> None:
    metadata = {"at": dt.datetime(2020, 1, 2, 3, 4, 5), "on": [dt.date(2021, 2, 3)]}
    path = record(IMAGES, metadata=metadata)
    expected = {"at": "2020-01-02T03:04:05", "on": ["2021-02-03"]}
    assert imgstore_zarr.open(path).user_metadata == expected
    assert metadata["on"] == [dt.date(2021, 2, 3)]


def test_files_are_no_chunks_of_a_zarr_recording(tmp_path: Path) -> None:
    with (
        imgstore_zarr.create(tmp_path / "r", "npy", (8, 10)) as writer,
        pytest.raises(UnsupportedFormatError, match="not of raw/zarr"),
    ):
        writer.insert_chunk(tmp_path / "a.mp4", [1], [1.0])


def test_the_number_and_time_of_the_last_image(store: ImgStore) -> None:
    assert np.isnan(store.frame_number)
    assert np.isnan(store.frame_time)
    store.get_image(frame_index=3)
    assert (store.frame_number, store.frame_time) == (NUMBERS[3], TIMES[3])


def test_the_formats_that_are_told_can_be_made() -> None:
    formats = imgstore_zarr.get_supported_formats()
    assert len(formats) == len(set(formats))
    assert {"raw/zarr", "lz4/zarr", "zstd/zarr", "npy", "bpk", "png", "png+color"} <= set(formats)


def test_a_report_of_a_store(store: ImgStore) -> None:
    report = store.report()
    assert (report.frame_count, report.chunk_count) == (11, 3)
    # 8 to 12, 3 to 13, -2 to 20, 7 to 21.
    assert [gap.position for gap in report.gaps] == [2, 5, 8, 10]
    assert (report.repeated, report.backward) == (1, 3)
    assert report.ok
