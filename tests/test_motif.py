"""Recordings in video chunks, as Motif and imgstore write them."""

from __future__ import annotations

import datetime as dt
import errno
import json
import random
import re
import shutil
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from numpy.typing import ArrayLike

import imgstore_zarr
from imgstore_zarr import (
    ChunkMissingError,
    CorruptChunkError,
    FrameNotFoundError,
    InvalidMetadataError,
    RecordingAccessError,
    UnsupportedVersionError,
)
from imgstore_zarr.formats import find_layout
from imgstore_zarr.layouts import ExtractsFrames
from imgstore_zarr.storage import Directory
from imgstore_zarr.testing import Example, LayoutTests
from tests.videos import KINDS, Images, Kind, encode, opencv_frames, read_barcode, scene

SHAPE = (96, 128)
PLAIN = KINDS[0]
B_FRAMES = KINDS[1]


def write_metadata(root: Path, user: Mapping[str, Any] | None = None, **store: Any) -> None:
    """A ``metadata.yaml`` as Motif writes it; a key given as None is left out."""
    keys: dict[str, Any] = {
        "class": "VideoImgStoreFFMPEG",
        "version": 2,
        "format": "h264_nvenc/mp4",
        "extension": ".mp4",
        "imgshape": list(SHAPE),
        "imgdtype": "uint8",
        "chunksize": 20,
        "encoding": "",
        "uuid": "0123456789abcdef0123456789abcdef",
        "created_utc": "2024-03-01T10:20:30.123456",
        "timezone_local": "Europe/Vienna",
    } | store
    root.mkdir(parents=True, exist_ok=True)
    document = {
        **(user or {}),
        "__store": {key: value for key, value in keys.items() if value is not None},
    }
    (root / "metadata.yaml").write_text(yaml.safe_dump(document))


def write_chunk(
    root: Path,
    chunk: int,
    frames: Images,
    numbers: Sequence[int],
    times: ArrayLike,
    kind: Kind = B_FRAMES,
    **members: Any,
) -> Images:
    """Write one chunk; return what OpenCV reads from it, (frame, y, x, 3)."""
    path = encode(root / f"{chunk:06d}{kind.suffix}", frames, kind)
    np.savez(path.with_suffix(".npz"), frame_number=numbers, frame_time=times, **members)
    return opencv_frames(path)


def gray(frames: Images) -> Images:
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]).astype(np.uint8)


def motif(root: Path, *, color: bool = False) -> Example:
    """A recording of three chunks with numbers that start above 0 and a gap."""
    write_metadata(
        root, {"camera": "top", "gain": 3.5}, imgshape=[*SHAPE, 3] if color else list(SHAPE)
    )
    source = scene(50)
    numbers = [*range(100, 130), *range(137, 157)]
    times = [1.7e9 + number / 25 for number in numbers]
    parts, extra = [], []
    for chunk, start in enumerate(range(0, 50, 20)):
        span = slice(start, start + 20)
        parts.append(write_chunk(root, chunk, source[span], numbers[span], times[span]))
        records = [
            {
                "temperature": 20 + i / 8,
                "label": f"at {i}",
                "frame_time": times[i],
                "frame_number": numbers[i],
                "frame_index": i,
            }
            for i in range(start, min(start + 20, 50), 5)
        ]
        extra += records
        (root / f"{chunk:06d}.extra.json").write_text(json.dumps(records))
    images = np.concatenate(parts)
    return Example(str(root), list(images if color else gray(images)), numbers, times, extra)


class TestGray(LayoutTests):
    def recording(self, directory: Path) -> Example:
        return motif(directory / "recording")


class TestColor(LayoutTests):
    def recording(self, directory: Path) -> Example:
        return motif(directory / "recording", color=True)


def small(root: Path, count: int = 6, **store: Any) -> Path:
    write_metadata(root, **store)
    write_chunk(root, 0, scene(count), range(count), np.arange(count) / 25, PLAIN)
    return root


# Metadata


def test_metadata_of_motif(tmp_path: Path) -> None:
    motif(tmp_path / "recording")
    store = imgstore_zarr.open(tmp_path / "recording" / "metadata.yaml")
    created, timezone = store.created
    assert created == pd.Timestamp("2024-03-01T10:20:30.123456", tz="UTC")
    assert str(timezone) == "Europe/Vienna"
    assert store.user_metadata == {"camera": "top", "gain": 3.5}
    assert store.uuid == "0123456789abcdef0123456789abcdef"
    assert store.format == "h264_nvenc/mp4"
    assert store.encoding is None
    assert not store.lossless
    assert store.chunks == [0, 1, 2]
    assert store.full_path == str(tmp_path / "recording" / "metadata.yaml")
    assert store.report().dropped == 7
    assert store.report().ok


@pytest.mark.parametrize(
    "store",
    [
        {"chunksize": 4500.0},
        {"encoding": None},
        {"uuid": None},
        {"extension": None, "format": "libx264"},
        {"class": "VideoImgStore", "format": "avc1/mp4"},
        {"framerate": 15, "roi": [0, 0, 4, 4]},
        {"created_utc": "2024-03-01T10:20:30+00:00"},
    ],
    ids=str,
)
def test_variants_of_metadata(tmp_path: Path, store: dict[str, Any]) -> None:
    opened = imgstore_zarr.open(small(tmp_path / "recording", **store))
    assert [read_barcode(image[:48]) for image, _ in opened] == list(range(6))
    assert opened.info.chunksize == int(store.get("chunksize", 20))


def test_old_metadata_without_a_date(tmp_path: Path) -> None:
    named = small(tmp_path / "mouse.20190604_153015", created_utc=None, timezone_local=None)
    write_metadata(
        named,
        {"timezone": "America/New_York"},
        created_utc=None,
        timezone_local=None,
        format="libx264",
    )
    created, timezone = imgstore_zarr.open(named).created
    assert created == pd.Timestamp("2019-06-04T19:30:15", tz="UTC")
    assert str(timezone) == "America/New_York"
    unnamed = small(tmp_path / "mouse", created_utc=None)
    modified = (unnamed / "metadata.yaml").stat().st_mtime
    assert imgstore_zarr.open(unnamed).created[0].timestamp() == pytest.approx(modified)


def test_a_folder_named_by_digits_that_are_no_date(tmp_path: Path) -> None:
    root = small(tmp_path / "r.20199999_999999", created_utc=None)
    modified = (root / "metadata.yaml").stat().st_mtime
    assert imgstore_zarr.open(root).created[0].timestamp() == pytest.approx(modified)


def test_dates_in_other_forms(tmp_path: Path) -> None:
    # imgstore reads them with dateutil.
    root = small(tmp_path / "recording", created_utc="Fri Mar 1 10:20:30 2024")
    assert imgstore_zarr.open(root).created[0] == pd.Timestamp("2024-03-01T10:20:30", tz="UTC")
    for text in ("yesterday", "9" * 40):
        write_metadata(root, created_utc=text)
        with pytest.raises(InvalidMetadataError, match=rf"__store\.created_utc .* is '{text}'"):
            imgstore_zarr.open(root)


def test_one_channel_is_gray(tmp_path: Path) -> None:
    store = imgstore_zarr.open(small(tmp_path / "recording", imgshape=[*SHAPE, 1]))
    assert store.image_shape == store.get_next_image()[0].shape == SHAPE


def test_odd_sizes_are_cut(tmp_path: Path) -> None:
    root = small(tmp_path / "recording", imgshape=[97, 129], format="nvenc-h264")
    assert imgstore_zarr.open(root).image_shape == SHAPE


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", InvalidMetadataError),
        ("just text", InvalidMetadataError),
        ("__store: {class: VideoImgStore, version: 2", InvalidMetadataError),
        ("__store: {class: VideoImgStore, version: 2}", InvalidMetadataError),
        ("__store: [VideoImgStore]", InvalidMetadataError),
        ("__store: {class: VideoImgStore, version: 2, at: 2024-13-45}", InvalidMetadataError),
        ("animal: mouse", InvalidMetadataError),
        ("a: \ud800".encode("utf-8", "surrogatepass"), InvalidMetadataError),
        ("__store: {class: DirectoryImgStore, version: 2}", InvalidMetadataError),
    ],
    ids=repr,
)
def test_damaged_metadata(tmp_path: Path, text: str | bytes, error: type[Exception]) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "metadata.yaml").write_bytes(data)
    with pytest.raises(error, match=str(tmp_path)):
        imgstore_zarr.open(tmp_path)


@pytest.mark.parametrize("name", ["SomethingElse", None, 7, ["VideoImgStore"]], ids=str)
def test_an_unknown_class(tmp_path: Path, name: object) -> None:
    root = small(tmp_path / "recording")
    document = yaml.safe_load((root / "metadata.yaml").read_text())
    document["__store"]["class"] = name
    (root / "metadata.yaml").write_text(yaml.safe_dump(document))
    match = (
        rf"recording: __store\.class in metadata\.yaml is {re.escape(repr(name))}; known are Video"
    )
    with pytest.raises(InvalidMetadataError, match=match):
        imgstore_zarr.open(root)


@pytest.mark.parametrize("key", ["format", "imgshape", "imgdtype", "chunksize"])
def test_a_key_that_is_missing(tmp_path: Path, key: str) -> None:
    root = small(tmp_path / "recording")
    write_metadata(root, None, **{key: None})
    with pytest.raises(InvalidMetadataError, match=rf"metadata\.yaml lacks __store\.{key};"):
        imgstore_zarr.open(root)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("imgshape", [96]),
        ("imgshape", [0, 128]),
        ("imgshape", []),
        ("imgshape", "wide"),
        ("imgdtype", "colour"),
        ("imgdtype", "O"),
        ("encoding", "cv_nonsense"),
        ("chunksize", "many"),
        ("encoding", ["cv_bayerrg"]),
        ("imgshape", [96.5, 128]),
        ("imgshape", ["96", 128]),
        ("imgshape", [True, 128]),
        ("imgshape", {96: 1, 128: 1}),
        ("imgshape", "96"),
        ("imgshape", [10**9, 10**9]),
        ("imgshape", [float("inf"), 128]),
        ("imgdtype", ["uint8"]),
        ("imgdtype", 7),
        ("chunksize", 0),
        ("chunksize", -1),
        ("chunksize", 4500.5),
        ("chunksize", float("nan")),
        ("chunksize", float("inf")),
        ("chunksize", True),
        ("format", ["avc1/mp4"]),
        ("format", ""),
        ("format", 7),
        ("created_utc", 5),
        ("created_utc", ["2024-03-01"]),
        ("created_utc", "0001-01-01T00:00:00+14:00"),
        ("extension", "mp4"),
        ("extension", "/../../x.mp4"),
        ("extension", ".npz"),
        ("extension", [".mp4"]),
        ("extension", 4),
    ],
)
def test_a_key_that_cannot_be(tmp_path: Path, key: str, value: object) -> None:
    root = small(tmp_path / "recording")
    write_metadata(root, None, **{key: value})
    match = rf"__store\.{key} in metadata\.yaml is {re.escape(repr(value))} "
    with pytest.raises(InvalidMetadataError, match=match):
        imgstore_zarr.open(root)


@pytest.mark.parametrize("key", ["format", "imgshape", "imgdtype", "chunksize"])
def test_a_key_that_is_null(tmp_path: Path, key: str) -> None:
    root = small(tmp_path / "recording")
    document = yaml.safe_load((root / "metadata.yaml").read_text())
    document["__store"][key] = None
    (root / "metadata.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(InvalidMetadataError, match=rf"__store\.{key} in metadata\.yaml is None "):
        imgstore_zarr.open(root)


def test_a_date_that_is_not_quoted(tmp_path: Path) -> None:
    root = small(tmp_path / "recording", created_utc=dt.datetime(2024, 3, 1, 10, 20, 30))
    assert "created_utc: 2024-03-01 10:20:30" in (root / "metadata.yaml").read_text()
    assert imgstore_zarr.open(root).created[0] == pd.Timestamp("2024-03-01T10:20:30", tz="UTC")


def test_metadata_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = small(tmp_path / "recording")
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == "metadata.yaml":
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path)

    # Permissions do not hold for root, as whom tests may run.
    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(RecordingAccessError, match=r"metadata\.yaml was refused"):
        imgstore_zarr.open(root)


def test_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedVersionError, match=r"__store\.version in metadata\.yaml is 1;"):
        imgstore_zarr.open(small(tmp_path / "recording", version=1))


# Chunks


def test_numbers_of_chunks_may_start_above_zero_and_have_holes(tmp_path: Path) -> None:
    root = tmp_path / "recording"
    write_metadata(root)
    frames = scene(30)
    expected = [
        write_chunk(root, chunk, frames[i : i + 10], range(i, i + 10), np.arange(i, i + 10) / 25)
        for chunk, i in ((3, 0), (4, 10), (9, 20))
    ]
    store = imgstore_zarr.open(root)
    assert store.chunks == [3, 4, 9]
    np.testing.assert_array_equal(store.frames[...], gray(np.concatenate(expected)))
    assert store.index.chunk_at(25) == (9, 5)


def test_a_chunk_without_index_is_reported(tmp_path: Path) -> None:
    motif(tmp_path / "recording")
    (tmp_path / "recording" / "000001.npz").unlink()
    store = imgstore_zarr.open(tmp_path / "recording")
    assert store.frame_count == 30
    assert store.chunks == [0, 2]
    (problem,) = store.report().problems
    assert (problem.kind, problem.chunk) == ("chunk-without-index", 1)


def test_a_chunk_without_video_raises_when_it_is_read(tmp_path: Path) -> None:
    example = motif(tmp_path / "recording")
    (tmp_path / "recording" / "000001.mp4").unlink()
    store = imgstore_zarr.open(tmp_path / "recording")
    assert store.frame_count == 50
    assert [problem.kind for problem in store.report().problems] == ["chunk-missing"]
    with pytest.raises(ChunkMissingError, match=r"chunk 1 .*000001\.mp4"):
        store.get_image(frame_index=25)
    np.testing.assert_array_equal(store.get_image(frame_index=45)[0], example.images[45])
    with pytest.raises(ChunkMissingError):
        store.to_xarray(chunks="auto").compute()


def test_a_lost_video_counts_unless_its_index_is_a_copy(tmp_path: Path) -> None:
    root = tmp_path / "recording"
    motif(root)
    with np.load(root / "000002.npz") as index:
        numbers, times = index["frame_number"], index["frame_time"]
    # As imgstore leaves it on closing.
    np.savez(root / "000003.npz", frame_number=numbers, frame_time=times)
    store = imgstore_zarr.open(root)
    assert (store.frame_count, store.chunks) == (50, [0, 1, 2])
    assert [problem.kind for problem in store.report().problems] == ["index-left-over"]
    for other in (numbers + 1, times + 1), (numbers, times + 1), (numbers[:-1], times[:-1]):
        np.savez(root / "000003.npz", frame_number=other[0], frame_time=other[1])
        store = imgstore_zarr.open(root)
        assert store.frame_count == 50 + len(other[0])
        assert [problem.kind for problem in store.report().problems] == ["chunk-missing"]
    # One of those before.
    (root / "000003.npz").unlink()
    (root / "000001.mp4").unlink()
    shutil.copy(root / "000000.npz", root / "000001.npz")
    assert imgstore_zarr.open(root).frame_count == 50


def test_an_empty_chunk_is_skipped(tmp_path: Path) -> None:
    motif(tmp_path / "recording")
    np.savez(tmp_path / "recording" / "000003.npz", frame_number=[], frame_time=[])
    (tmp_path / "recording" / "000003.mp4").touch()
    store = imgstore_zarr.open(tmp_path / "recording")
    assert store.chunks == [0, 1, 2]
    assert store.report().ok


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("000001.npz", "index-damaged", 30),
        ("000001.yaml", "index-damaged", 30),
        ("000001.index.journal", "index-damaged", 30),
        ("000001.mp4", "chunk-damaged", 50),
        ("000001.extra.json", "extra-data-damaged", 50),
    ],
)
def test_a_directory_in_place_of_a_file(tmp_path: Path, name: str, kind: str, count: int) -> None:
    root = tmp_path / "recording"
    example = motif(root)
    if count < 50:
        (root / "000001.npz").unlink()
    (root / name).unlink(missing_ok=True)
    (root / name).mkdir()
    store = imgstore_zarr.open(root)
    assert store.frame_count == count
    assert [(problem.kind, problem.chunk) for problem in store.report().problems] == [(kind, 1)]
    for position in (*range(20), *range(40, 50)):
        image, _ = store.get_image(example.numbers[position])
        np.testing.assert_array_equal(image, example.images[position])


def test_an_index_of_python_2(tmp_path: Path) -> None:
    # NumPy wrote the shape as repr gives it, and long integers had an L.
    root = small(tmp_path / "recording", count=6)
    columns = {"frame_number": np.arange(40, 46), "frame_time": np.arange(6) / 8}
    with zipfile.ZipFile(root / "000000.npz", "w") as archive:
        for member, column in columns.items():
            header = (
                f"{{'descr': '{column.dtype.str}', 'fortran_order': False, 'shape': (6L,), }}"
            ).encode()
            header = header.ljust(69) + b"\n"
            start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
            archive.writestr(f"{member}.npy", start + header + column.tobytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about Python 2
        with np.load(root / "000000.npz") as index:
            expected = {name: index[name].tolist() for name in columns}
    store = imgstore_zarr.open(root)
    assert store.get_frame_metadata() == expected
    assert store.report().ok


def test_an_index_as_yaml(tmp_path: Path) -> None:
    root = small(tmp_path / "recording")
    (root / "000000.npz").unlink()
    index = {"frame_number": [5, 6, 7, 9, 10, 11], "frame_time": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]}
    (root / "000000.yaml").write_text(yaml.safe_dump(index))
    assert imgstore_zarr.open(root).get_frame_metadata() == index


def test_other_members_of_the_index_are_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path.touch, (Path(str(tmp_path / "exploded")),))  # type: ignore[return-value]

    root = tmp_path / "recording"
    write_metadata(root)
    bomb = np.empty((), object)
    bomb[()] = Bomb()
    write_chunk(root, 0, scene(5), range(5), np.arange(5.0), encoding=bomb, imgshape=SHAPE)
    assert imgstore_zarr.open(root).frame_count == 5
    assert not (tmp_path / "exploded").exists()


def check_left_out(root: Path, name: str) -> None:
    """One chunk of the recording is reported for its index; the frames of the others are there."""
    store = imgstore_zarr.open(root)
    (problem,) = store.report().problems
    assert problem.kind == "index-damaged"
    assert problem.chunk == int(name.partition(".")[0])
    assert f"index {name} is damaged" in problem.message
    assert problem.chunk not in store.chunks


@pytest.mark.parametrize("damage", ["truncate", "garbage", "lengths", "missing member", "pickles"])
def test_a_damaged_index_is_reported(tmp_path: Path, damage: str) -> None:
    example = motif(tmp_path / "recording")
    root = tmp_path / "recording"
    path = root / "000001.npz"
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "garbage":
        path.write_bytes(b"no index")
    elif damage == "lengths":
        np.savez(path, frame_number=np.arange(5), frame_time=np.arange(4.0))
    elif damage == "pickles":
        np.savez(path, frame_number=np.array([0, None]), frame_time=np.array([0.0, None]))
    else:
        np.savez(path, frame_number=np.arange(5))
    check_left_out(root, "000001.npz")
    store = imgstore_zarr.open(root)
    assert store.frame_count == 30
    image, _ = store.get_image(example.numbers[45])
    np.testing.assert_array_equal(image, example.images[45])
    with pytest.raises(FrameNotFoundError):
        store.get_image(example.numbers[25])


def test_a_damaged_compressed_index_says_so(tmp_path: Path) -> None:
    root = small(tmp_path / "recording")
    path = root / "000000.npz"
    np.savez_compressed(path, frame_number=np.arange(6), frame_time=np.arange(6.0))
    whole = path.read_bytes()
    columns = imgstore_zarr.open(root).get_frame_metadata()
    raised = 0
    # Damage in the padding of the npy header or in a time stamp of the archive changes nothing.
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        store = imgstore_zarr.open(root)
        if store.report().ok:
            assert store.get_frame_metadata() == columns
        else:
            raised += 1
    assert raised > len(whole) // 6


@pytest.mark.parametrize(
    "numbers",
    [
        [0, 1, 2, 3, 4, 5.5],
        [0, 1, 2, 3, 4, np.nan],
        [0, 1, 2, 3, 4, np.inf],
        [0, 1, 2, 3, 4, 2.0**63],
        np.array([0, 1, 2, 3, 4, 2**63], np.uint64),
    ],
    ids=str,
)
def test_frame_numbers_that_are_no_integers(tmp_path: Path, numbers: ArrayLike) -> None:
    root = small(tmp_path / "recording")
    np.savez(root / "000000.npz", frame_number=numbers, frame_time=np.arange(6.0))
    check_left_out(root, "000000.npz")


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint64", "int16", ">i4"])
def test_frame_numbers_of_any_type(tmp_path: Path, dtype: str) -> None:
    root = small(tmp_path / "recording")
    numbers = [5, 6, 7, 9, 10, 32_000]
    np.savez(root / "000000.npz", frame_number=np.array(numbers, dtype), frame_time=np.arange(6.0))
    assert imgstore_zarr.open(root).index.frame_number.tolist() == numbers


@pytest.mark.parametrize("column", ["frame_number", "frame_time"])
def test_text_in_an_index_as_yaml(tmp_path: Path, column: str) -> None:
    root = small(tmp_path / "recording")
    (root / "000000.npz").unlink()
    index = {"frame_number": [0, 1], "frame_time": [0.0, 1.0]} | {column: ["0", "1"]}
    (root / "000000.yaml").write_text(yaml.safe_dump(index))
    check_left_out(root, "000000.yaml")


def test_an_index_of_more_frames_than_the_video_holds(tmp_path: Path) -> None:
    root = small(tmp_path / "recording")
    np.savez(root / "000000.npz", frame_number=np.arange(8), frame_time=np.arange(8.0))
    store = imgstore_zarr.open(root)
    assert store.get_image(frame_index=5)[0].shape == SHAPE
    with pytest.raises(CorruptChunkError, match="holds 6 frames"):
        store.get_image(frame_index=6)


def test_a_video_of_another_size_says_so(tmp_path: Path) -> None:
    root = small(tmp_path / "recording", imgshape=[48, 64])
    with pytest.raises(CorruptChunkError, match=r"\(96, 128\).*\(48, 64\)"):
        imgstore_zarr.open(root).get_image(frame_index=0)


def test_few_files_are_open_at_once(tmp_path: Path) -> None:
    root = tmp_path / "recording"
    write_metadata(root)
    encode(tmp_path / "chunk.mp4", scene(4), PLAIN)
    for chunk in range(40):
        shutil.copy(tmp_path / "chunk.mp4", root / f"{chunk:06d}.mp4")
        numbers = np.arange(chunk * 4, chunk * 4 + 4)
        np.savez(root / f"{chunk:06d}.npz", frame_number=numbers, frame_time=numbers / 25)
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("open files cannot be counted here")
    store = imgstore_zarr.open(root)
    before = len(list(descriptors.iterdir()))
    most = 0
    for position in range(0, 160, 4):
        store.get_image(frame_index=position)
        most = max(most, len(list(descriptors.iterdir())))
    assert most <= before + 4
    store.close()
    assert len(list(descriptors.iterdir())) <= before


# Extra data


def test_extra_data_of_motif_as_json(tmp_path: Path) -> None:
    root = small(tmp_path / "recording")
    records = [
        {"frame_index": i, "frame_number": n, "frame_time": i / 2, "sensor_time": s, "v": i}
        for i, n, s in ((3, 13, 1.0), (1, 11, 2.0), (1, 11, 1.5), (2, -1, 0.0))
    ]
    (root / "000000.extra_data.json").write_text(json.dumps(records))
    (root / "000000.extra.json").write_text("[]")
    store = imgstore_zarr.open(root)
    assert store.has_extra_data
    assert store.find_extra_data_files() == [str(root / "000000.extra_data.json")]
    table = store.get_extra_data()
    assert table is not None
    assert table["sensor_time"].tolist() == [1.5, 2.0, 1.0]


def test_extra_data_of_motif_as_hdf5(tmp_path: Path) -> None:
    # No public recording has such a file: this one follows the facts in the design.
    root = small(tmp_path / "recording")
    camera = np.zeros(8, [("frame_number", "<i8"), ("frame_time", "<f8"), ("frame_index", "<i8")])
    camera["frame_number"] = [10, 11, 12, 13, 14, 15, -1, -1]
    camera["frame_time"] = np.arange(8) / 25
    with h5py.File(root / "000000.extra_data.h5", "w") as file:
        file.attrs["datasets"] = np.bytes_("daq")
        file["camera"] = camera
        daq = file.create_dataset("daq", data=np.arange(16.0).reshape(2, 8))
        daq.attrs["column_names"] = "left, right"
        daq.attrs["samplerate"] = 1000.0
        file["sample_delay"] = np.full(8, 0.25)
    store = imgstore_zarr.open(root)
    table = store.get_extra_data()
    assert table is not None
    assert table["frame_number"].tolist() == [10, 11, 12, 13, 14, 15]
    assert table["left"].tolist() == [0, 1, 2, 3, 4, 5]
    assert table["right"].tolist() == [8, 9, 10, 11, 12, 13]
    assert table["sample_delay"].tolist() == [0.25] * 6
    assert store.get_extra_data_samplerate() == 1000


@pytest.mark.parametrize("damage", ["@", '"a": 1}', "{]", "[", "7", '{"a": 1} {'])
def test_damaged_extra_data(tmp_path: Path, damage: str) -> None:
    example = motif(tmp_path / "recording")
    path = tmp_path / "recording" / "000001.extra.json"
    path.write_text(path.read_text().replace(", {", f", {damage}, {{", 1))
    store = imgstore_zarr.open(tmp_path / "recording")
    with pytest.raises(CorruptChunkError, match=r"000001\.extra\.json"):
        store.get_extra_data()
    with pytest.warns(UserWarning, match=r"left out: .*000001\.extra\.json"):
        table = store.get_extra_data(ignore_corrupt_chunks=True)
    assert table is not None
    assert example.extra is not None
    kept = [record for record in example.extra if not 20 <= record["frame_index"] < 40]
    pd.testing.assert_frame_equal(table, pd.DataFrame(kept))


def test_extra_data_of_a_writer_that_crashed(tmp_path: Path) -> None:
    root = small(tmp_path / "recording")
    records = [{"frame_index": i, "text": f'}}{i}] "\\ ä', "list": [{"a": i}]} for i in range(3)]
    text = json.dumps(records, ensure_ascii=False)
    data = text.encode()
    ends = [len(json.dumps(records[: n + 1], ensure_ascii=False).encode()) - 1 for n in range(3)]
    for length in range(len(data)):
        (root / "000000.extra.json").write_bytes(data[:length])
        whole = sum(end <= length for end in ends)
        with pytest.warns(UserWarning, match=rf"000000\.extra\.json .* {whole} whole records"):
            table = imgstore_zarr.open(root).get_extra_data()
        if whole:
            assert table is not None
            assert table.to_dict("records") == records[:whole]
        else:
            assert table is None


def test_one_damaged_byte_in_extra_data_is_no_crash(tmp_path: Path) -> None:
    # Whatever becomes of the byte: all three records are there, or it is said that they are not.
    root = small(tmp_path / "recording")
    records = [{"frame_index": i, "text": f'}}{i}] "\\ ä', "v": [1.5, {"a": i}]} for i in range(3)]
    data = json.dumps(records).encode()
    store = imgstore_zarr.open(root)
    refused = 0
    for at in range(data.rindex(b'{"frame_index')):
        for byte in b'@"{}],x':
            damaged = data[:at] + bytes([byte]) + data[at + 1 :]
            (root / "000000.extra.json").write_bytes(damaged)
            try:
                table = store.get_extra_data()
            except CorruptChunkError:
                refused += 1
            else:
                assert table is not None
                assert len(table) == 3
    assert refused > 500


def test_extra_data_that_end_in_zeros(tmp_path: Path) -> None:
    # As a file system leaves them that was not told to write before the power was lost.
    root = small(tmp_path / "recording")
    (root / "000000.extra.json").write_bytes(b'[{"a": 1}, {"a": 2}, {"a": ' + bytes(100))
    with pytest.warns(UserWarning, match=r"000000\.extra\.json .* 2 whole records"):
        table = imgstore_zarr.open(root).get_extra_data()
    assert table is not None
    assert table["a"].tolist() == [1, 2]


@pytest.mark.parametrize("text", ['{"a": 1}', "null", "7", "[1, 2]", '"a"'])
def test_extra_data_that_are_no_records(tmp_path: Path, text: str) -> None:
    root = small(tmp_path / "recording")
    (root / "000000.extra.json").write_text(text)
    with pytest.raises(CorruptChunkError, match=r"000000\.extra\.json .* no (list of )?record"):
        imgstore_zarr.open(root).get_extra_data()


def test_extra_data_of_no_chunk_are_left_out(tmp_path: Path) -> None:
    root = small(tmp_path / "recording")
    (root / "000000.extra.json").write_text('[{"a": 1, "frame_index": 5}]')
    for name in ("000009.extra.json", "000001.extra_data.json", "000004.extra_data.h5"):
        (root / name).write_text('[{"a": 2, "frame_index": 5}]')
    store = imgstore_zarr.open(root)
    assert store.find_extra_data_files() == [str(root / "000000.extra.json")]
    table = store.get_extra_data()
    assert table is not None
    assert table["a"].tolist() == [1]
    problems = store.report().problems
    assert {p.kind for p in problems} == {"extra-data-without-chunk"}
    assert {p.chunk for p in problems} == {1, 4, 9}


# To xarray


def test_engine(tmp_path: Path) -> None:
    example = motif(tmp_path / "r")
    dataset = xr.open_dataset(str(tmp_path / "r"), engine="imgstore", index="frame_number")
    assert set(dataset.data_vars) == {"image"}
    np.testing.assert_array_equal(dataset["image"].sel(frame_number=140), example.images[33])
    dataset.close()
    chunked = xr.open_dataset(
        str(tmp_path / "r"), engine="imgstore", chunks={}, drop_variables="frame_time"
    )
    assert set(chunked.coords) == {"frame_number"}
    np.testing.assert_array_equal(chunked["image"].values, example.stack)


def to_zarr(store: imgstore_zarr.ImgStore, destination: Path) -> imgstore_zarr.ImgStore:
    """Copy every frame into a Zarr recording."""
    with imgstore_zarr.create(
        destination, "zstd/zarr", store.image_shape, store.dtype, chunksize=64
    ) as writer:
        for image, (number, time) in store:
            writer.add_image(image, number, time)
    return imgstore_zarr.open(destination)


def test_a_copy_in_zarr_gives_the_same_array(tmp_path: Path) -> None:
    motif(tmp_path / "r")
    original = imgstore_zarr.open(tmp_path / "r")
    copy = to_zarr(original, tmp_path / "copy")
    xr.testing.assert_equal(original.to_xarray(), copy.to_xarray())
    xr.testing.assert_equal(original.to_xarray(chunks="auto"), copy.to_xarray(chunks="auto"))


# Recordings made by others


def barcode_of_loopbio(image: Images) -> int:
    small_image = cv2.resize(image, (16, 16), interpolation=cv2.INTER_NEAREST)
    return int("".join(str(int(bar)) for bar in small_image.mean(axis=0) > 127), 2)


@pytest.mark.shared_data
def test_the_store_of_loopbio_in_any_order(shared_data: Path) -> None:
    path = shared_data / "loopbio_store_mp4"
    count = 179
    orders = {
        "sequential": range(count),
        "reverse": range(count - 1, -1, -1),
        "random": random.Random(4).sample(range(count), count),
    }
    for name, order in orders.items():
        store = imgstore_zarr.open(path)
        assert len(store) == count
        for number in order:
            image, (frame_number, _) = store.get_image(number)
            assert (frame_number, barcode_of_loopbio(image)) == (number, number), name
        store.close()
    store = imgstore_zarr.open(path)
    assert [barcode_of_loopbio(image) for image, _ in store] == list(range(count))
    expected = gray(np.concatenate([opencv_frames(path / f"00000{i}.mp4") for i in range(2)]))
    np.testing.assert_array_equal(store.frames[...], expected)


@pytest.mark.shared_data
def test_the_store_of_loopbio_equals_its_copy_in_zarr(shared_data: Path, tmp_path: Path) -> None:
    original = imgstore_zarr.open(shared_data / "loopbio_store_mp4")
    copy = to_zarr(original, tmp_path / "copy")
    xr.testing.assert_equal(original.to_xarray(), copy.to_xarray())


@pytest.mark.shared_data
def test_stores_that_lack_their_videos(shared_data: Path) -> None:
    store = imgstore_zarr.open(shared_data / "shaliulab_imgstore_1")
    assert store.frame_count == 226
    assert [problem.chunk for problem in store.report().problems] == [0, 1, 2]
    image, (number, time) = store.get_image(frame_index=225)
    assert image.shape == (1498, 1514)
    assert number == 225
    # Milliseconds from 0: values are kept as they are.
    assert time == store.frame_time_max > 15_000
    with pytest.raises(ChunkMissingError):
        store.get_image(frame_index=0)
    lowres = imgstore_zarr.open(shared_data / "shaliulab_lowres_indexonly")
    assert lowres.frame_count == 1049
    assert len(lowres.report().problems) == 3
    assert lowres.to_xarray().shape == (1049, 476, 470)


# One frame without the whole index


def test_one_frame_is_extracted_without_reading_later_indexes(tmp_path: Path) -> None:
    root = tmp_path / "recording"
    write_metadata(root)
    frames = scene(30)
    expected = np.concatenate(
        [
            write_chunk(root, chunk, frames[a:b], range(a, b), np.arange(a, b) / 25)
            for chunk, a, b in ((3, 0, 5), (4, 5, 15), (9, 15, 30))
        ]
    )
    for position in (0, 4, 5, 14, 15, 29):
        image = imgstore_zarr.extract_only_frame(root, position)
        # In colour whatever the recording says, as imgstore does.
        np.testing.assert_array_equal(image, expected[position])
    with pytest.raises(FrameNotFoundError, match="no position 30"):
        imgstore_zarr.extract_only_frame(root, 30)
    wrong: list[Any] = [-1, 1.5, None]
    for no_position in wrong:
        with pytest.raises(FrameNotFoundError):
            imgstore_zarr.extract_only_frame(root, no_position)
    read = []

    class Counting(Directory):
        def read(self, key: str) -> bytes:
            read.append(key)
            return super().read(key)

    layout = find_layout(Directory(root))
    assert isinstance(layout, ExtractsFrames)
    image_at_7 = layout.extract(Counting(root), 7)
    assert image_at_7 is not None
    assert read == ["metadata.yaml", "000003.npz", "000004.npz"]


def test_extracting_from_a_chunk_without_video(tmp_path: Path) -> None:
    motif(tmp_path / "recording")
    (tmp_path / "recording" / "000001.mp4").unlink()
    with pytest.raises(ChunkMissingError, match=r"chunk 1 \(000001\.mp4\)"):
        imgstore_zarr.extract_only_frame(tmp_path / "recording", 25)
