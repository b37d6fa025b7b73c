"""Recordings in directories of images, as they are written."""

from __future__ import annotations

import errno
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from imgstore_compat.chunk_journal import ChunkJournal, decode_journal
from imgstore_compat.directory.sink import DirectorySink
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr import (
    CorruptChunkError,
    InvalidMetadataError,
    RecordingAccessError,
    RecordingExistsError,
    RecordingLockedError,
    UnsupportedFormatError,
)
from imgstore_zarr.storage import Directory
from imgstore_zarr.testing import WritableLayoutTests
from tests.test_directory import NUMBERS, SHAPE, TIMES, opencv, pictures

Image = NDArray[Any]

COLOR = (*SHAPE, 3)


class TestPng(WritableLayoutTests):
    format = "png/dir"
    imgshape = SHAPE


class TestColorPng16(WritableLayoutTests):
    format = "png/dir"
    imgshape = COLOR
    imgdtype = np.uint16


class TestTifFloat(WritableLayoutTests):
    format = "tif/dir"
    imgshape = COLOR
    imgdtype = np.float32


class TestNpy(WritableLayoutTests):
    format = "npy/dir"
    imgshape = (*SHAPE, 4)
    imgdtype = np.int64


class TestBpk(WritableLayoutTests):
    format = "bpk/dir"
    imgshape = SHAPE
    imgdtype = np.float64


def write(root: Path, images: list[Image], format: str = "png/dir", **options: Any) -> None:
    options = {"chunksize": 4, **options}
    first = options.pop("imgshape", images[0].shape)
    with imgstore_zarr.create(root, format, first, images[0].dtype, **options) as writer:
        for i, image in enumerate(images):
            writer.add_image(image, NUMBERS[i], TIMES[i])


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


# Every format

ANY = "int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64"
HELD = {
    "npy/dir": ANY,
    "bpk/dir": ANY,
    "png/dir": "uint8 uint16",
    "tif/dir": "int8 uint8 int16 uint16 int32 float32 float64",
    "bmp/dir": "uint8",
    "ppm/dir": "uint8 uint16",
    "pgm/dir": "uint8 uint16",
    "png+color/dir": "uint8 uint16",
    "tif+color/dir": "uint8 uint16 float32",
    "bmp+color/dir": "uint8",
}


@pytest.mark.parametrize(
    ("format", "shape"),
    [
        (name, shape)
        for name in HELD
        for shape in (SHAPE, COLOR)
        if (name, shape) != ("pgm/dir", COLOR)
    ],
    ids=str,
)
def test_every_dtype_comes_back(tmp_path: Path, format: str, shape: tuple[int, ...]) -> None:
    for dtype in HELD[format].split():
        images = pictures(6, shape, dtype)
        root = tmp_path / dtype
        write(root, images, format)
        with imgstore_zarr.open(root) as store:
            np.testing.assert_array_equal(store.frames[...], images, strict=True)
            assert store.lossless
            assert store.report().ok


def test_formats() -> None:
    formats = imgstore_zarr.get_supported_formats()
    for kind in ("npy", "bpk", "png", "tif", "bmp", "ppm", "pgm", "jpg"):
        assert f"{kind}/dir" in formats
    assert {"jpg", "jpg+color"} <= {*formats}


def test_what_lies_there_is_what_imgstore_expects(tmp_path: Path) -> None:
    root = tmp_path / "recording"
    images = pictures()
    write(root, images, metadata={"animal": "fly"}, encoding="cv_bayerrg")
    folders = [f"{i // 4:06d}/{i % 4:06d}.png" for i in range(10)]
    indexes = [f"{chunk:06d}/index.npz" for chunk in range(3)]
    assert tree(root) == sorted([*folders, *indexes, "metadata.yaml"])
    for name, image in zip(folders, images, strict=True):
        np.testing.assert_array_equal(cv2.imread(str(root / name), cv2.IMREAD_UNCHANGED), image)
    for chunk in range(3):
        with np.load(root / indexes[chunk]) as index:
            assert index["frame_number"].tolist() == list(NUMBERS[4 * chunk : 4 * chunk + 4])
            assert index["frame_time"].tolist() == list(TIMES[4 * chunk : 4 * chunk + 4])
    document = yaml.safe_load((root / "metadata.yaml").read_text())
    store = document.pop("__store")
    assert document == {"animal": "fly"}
    known = {"class": "DirectoryImgStore", "version": 2, "format": "png", "chunksize": 4}
    known |= {"imgshape": list(SHAPE), "imgdtype": "uint8", "encoding": "cv_bayerrg"}
    assert {name: store[name] for name in known} == known


def test_the_chunksize_of_imgstore(tmp_path: Path) -> None:
    with imgstore_zarr.create(tmp_path / "r", "pgm/dir", SHAPE) as writer:
        assert writer.info.chunksize == 200


@pytest.mark.parametrize("format", ["jpg", "jpg/dir", "jpg+color"])
@pytest.mark.parametrize("shape", [SHAPE, COLOR], ids=["gray", "color"])
def test_jpg_is_that_of_opencv(tmp_path: Path, format: str, shape: tuple[int, ...]) -> None:
    images = pictures(shape=shape)
    write(tmp_path / "r", images, format)
    quality = [np.asarray(cv2.imencode(".jpg", image)[1]) for image in images]
    flags = cv2.IMREAD_COLOR if len(shape) == 3 else cv2.IMREAD_GRAYSCALE
    expected = [cv2.imdecode(data, flags) for data in quality]
    store = imgstore_zarr.open(tmp_path / "r")
    np.testing.assert_array_equal(store.frames[...], expected)
    assert store.format == "jpg"
    assert not store.lossless


@pytest.mark.parametrize(("kind", "shape"), [("ppm", SHAPE), ("pgm", COLOR), ("ppm", COLOR)])
def test_ppm_is_colour_and_pgm_is_gray(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    root = tmp_path / "r"
    images = pictures(shape=shape)
    write(root, images, f"{kind}/dir")
    stored = cv2.imread(str(root / "000000" / f"000000.{kind}"), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    assert stored.ndim == (3 if kind == "ppm" else 2)
    store = imgstore_zarr.open(root)
    assert store.image_shape == shape
    np.testing.assert_array_equal(store.frames[...], opencv(root, images, kind))
    gray_of_color = (kind, shape) == ("pgm", COLOR)
    assert store.lossless != gray_of_color
    if not gray_of_color:
        np.testing.assert_array_equal(store.frames[...], images)


@pytest.mark.parametrize("kind", ["png", "tif", "bmp", "jpg"])
def test_color_formats_store_what_the_encoding_means(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "r"
    images = pictures()
    with imgstore_zarr.create(
        root, f"{kind}+color/dir", SHAPE, chunksize=4, encoding="cv_bayergb"
    ) as writer:
        for i, image in enumerate(images):
            writer.add_image(image, NUMBERS[i], TIMES[i])
        assert (writer.image_shape, writer.encoding, writer.format) == (COLOR, None, kind)
    decoded = [cv2.cvtColor(image, cv2.COLOR_BayerGB2BGR) for image in images]
    if kind == "jpg":
        encoded = [np.asarray(cv2.imencode(".jpg", image)[1]) for image in decoded]
        decoded = [np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)) for data in encoded]
    store = imgstore_zarr.open(root)
    np.testing.assert_array_equal(store.frames[...], decoded)
    assert (store.image_shape, store.encoding, store.format) == (COLOR, None, kind)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"imgdtype": "float32"}, r"png/dir holds images of uint8, uint16.*npy/dir"),
        ({"imgshape": (12, 17, 4)}, r"gray \(y, x\) or BGR"),
        ({"imgshape": (12, 17, 1)}, r"gray \(y, x\) or BGR"),
        ({"format": "bmp/dir", "imgdtype": "uint16"}, "bmp/dir"),
        ({"format": "jpg", "imgdtype": "uint16"}, "jpg/dir"),
        ({"format": "tif/dir", "imgdtype": "int64"}, "tif/dir"),
        ({"format": "npy/dir", "imgdtype": "complex64"}, "complex64"),
        ({"quality": 3}, "quality"),
        ({"fps": 25}, "fps"),
        ({"durable": True}, "durable"),
        ({"inner_chunks": (1, *SHAPE)}, "inner_chunks"),
        ({"encoding": "cv_nothing"}, "cv_nothing"),
        ({"chunksize": 0}, "chunksize"),
    ],
    ids=str,
)
def test_what_directories_cannot_hold(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    arguments = {"format": "png/dir", "imgshape": SHAPE, "imgdtype": "uint8"} | arguments
    with pytest.raises(UnsupportedFormatError, match=message):
        imgstore_zarr.create(tmp_path / "r", **arguments)
    assert not (tmp_path / "r").exists()


def test_metadata_that_yaml_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(InvalidMetadataError, match="'bad'"):
        imgstore_zarr.create(tmp_path / "r", "png/dir", SHAPE, metadata={"bad": "\ud800"})
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("format", ["png/dir", "raw/zarr"])
def test_an_existing_recording_is_never_overwritten(tmp_path: Path, format: str) -> None:
    write(tmp_path / "r", pictures(), format)
    before = tree(tmp_path / "r")
    with pytest.raises(RecordingExistsError, match="never overwritten"):
        imgstore_zarr.create(tmp_path / "r", "npy/dir", SHAPE)
    assert tree(tmp_path / "r") == before


def test_imgstore_takes_every_directory_for_a_chunk(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".git").mkdir()
    with pytest.raises(RecordingExistsError, match=r"directories \.git,"):
        imgstore_zarr.create(tmp_path, "png/dir", SHAPE)
    assert tree(tmp_path) == ["notes.txt"]
    (tmp_path / ".git").rmdir()
    write(tmp_path, pictures())
    assert imgstore_zarr.open(tmp_path).report().ok


def test_a_place_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordingAccessError):
        imgstore_zarr.create(tmp_path / "file", "png/dir", SHAPE)
    with pytest.raises(RecordingAccessError):
        imgstore_zarr.create(tmp_path / "file" / "below", "png/dir", SHAPE)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "r"
    with imgstore_zarr.create(root, "png/dir", SHAPE) as writer:
        assert (root / ".lock").exists()
        with pytest.raises(RecordingExistsError):
            imgstore_zarr.create(root, "png/dir", SHAPE)
        with pytest.raises(RecordingLockedError):
            imgstore_zarr.repair(root)
        (root / "metadata.yaml").rename(tmp_path / "kept")
        with pytest.raises(RecordingLockedError):
            imgstore_zarr.create(root, "png/dir", SHAPE)
        (tmp_path / "kept").rename(root / "metadata.yaml")
        writer.add_image(pictures()[0], 0, 0.0)
    assert tree(root) == ["000000/000000.png", "000000/index.npz", "metadata.yaml"]


# Beside a reader


def test_every_image_is_visible_once_it_is_added(tmp_path: Path) -> None:
    root = tmp_path / "r"
    images = pictures()
    with imgstore_zarr.create(root, "png/dir", SHAPE, chunksize=4) as writer:
        for i, image in enumerate(images):
            writer.add_image(image, NUMBERS[i], TIMES[i])
            store = imgstore_zarr.open(root)
            np.testing.assert_array_equal(store.frames[...], images[: i + 1])
            assert store.index.frame_number.tolist() == list(NUMBERS[: i + 1])
            assert [p.kind for p in store.report().problems] == ["repair-due"]
            np.testing.assert_array_equal(imgstore_zarr.extract_only_frame(str(root), i), image)
            assert writer.chunks == list(range(i // 4))
    assert imgstore_zarr.open(root).report().ok


def test_a_chunk_that_is_finished_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "r"
    images = pictures()
    with imgstore_zarr.create(root, "png/dir", SHAPE, chunksize=4) as writer:
        for i in range(4):
            writer.add_image(images[i], NUMBERS[i], TIMES[i])
        read = Directory.read

        def late(self: Directory, key: str) -> bytes:
            if key.endswith("journal") and writer.frame_count == 4:
                writer.add_image(images[4], NUMBERS[4], TIMES[4])
            return read(self, key)

        monkeypatch.setattr(Directory, "read", late)
        store = imgstore_zarr.open(root)
        assert writer.frame_count == 5
        np.testing.assert_array_equal(store.frames[...], images[:4])
        assert store.report().ok


def test_extra_data_lie_beside_the_chunk_of_their_frame(tmp_path: Path) -> None:
    root = tmp_path / "r"
    with imgstore_zarr.create(root, "npy/dir", SHAPE, chunksize=4) as writer:
        writer.add_extra_data(step=-1)
        for i, image in enumerate(pictures(8)):
            writer.add_image(image, i, float(i))
            writer.add_extra_data(step=2 * i)
            if i % 3 == 0:
                writer.flush()
                table = imgstore_zarr.open(root).get_extra_data()
                assert table is not None
                assert table["step"].tolist()[-1] == 2 * i
            writer.add_extra_data(step=2 * i + 1)
    for chunk in range(2):
        records = json.loads((root / f"{chunk:06d}" / "index.extra.json").read_text())
        steps = [record["step"] for record in records]
        assert steps == [*range(8 * chunk - (chunk == 0), 8 * chunk + 8)]
    table = imgstore_zarr.open(root).get_extra_data()
    assert table is not None
    assert table["step"].tolist() == list(range(-1, 16))


def test_extra_data_of_no_frames(tmp_path: Path) -> None:
    root = tmp_path / "r"
    with imgstore_zarr.create(root, "npy/dir", SHAPE) as writer:
        writer.add_extra_data(step=0)
    table = imgstore_zarr.open(root).get_extra_data()
    assert table is not None
    assert table["step"].tolist() == [0]
    assert imgstore_zarr.open(root).report().ok


# Failures


class Broken:
    """Stands in for a method; fails after some calls, having done a part of what it should."""

    def __init__(self, function: Any, after: int, error: BaseException, *, done: bool) -> None:
        self.calls = 0
        self._arguments = function, after, error, done

    def __get__(self, owner: Any, _: object = None) -> Any:
        function, after, error, done = self._arguments

        def call(*arguments: Any) -> Any:
            self.calls += 1
            if self.calls != after:
                return function(owner, *arguments)
            if done:
                function(owner, *arguments)
            raise error

        return call


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
@pytest.mark.parametrize(
    ("owner", "method", "after"),
    [(DirectorySink, "_write", 7), (ChunkJournal, "append", 7), (DirectorySink, "_begin_chunk", 2)],
)
def test_an_image_that_could_not_be_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    method: str,
    after: int,
    error: BaseException,
    done: bool,
) -> None:
    root = tmp_path / "r"
    images = pictures()
    failed = []
    with imgstore_zarr.create(root, "png/dir", SHAPE, chunksize=4) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, Broken(getattr(owner, method), after, error, done=done))
            for i, image in enumerate(images):
                try:
                    writer.add_image(image, NUMBERS[i], TIMES[i])
                except type(error):
                    failed.append(i)
                kept = [images[k] for k in range(i + 1) if k not in failed]
                np.testing.assert_array_equal(imgstore_zarr.open(root).frames[...], kept)
        assert len(failed) == 1
        writer.add_image(images[failed[0]], 7, 7.0)
    kept = [image for i, image in enumerate(images) if i not in failed] + [images[failed[0]]]
    numbers = [number for i, number in enumerate(NUMBERS) if i not in failed] + [7]
    store = imgstore_zarr.open(root)
    np.testing.assert_array_equal(store.frames[...], kept)
    assert store.index.frame_number.tolist() == numbers
    assert store.report().ok
    assert [len(span) for span in store.index.chunks()] == [4, 4, 2]


FULL_DISK = """
import resource, signal, sys
import numpy as np
import imgstore_zarr

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = imgstore_zarr.create(sys.argv[1], "npy/dir", (4, 4), chunksize=100)
image = np.arange(16, dtype=np.uint8).reshape(4, 4)
# The journal outgrows this, in the middle of a record, and then every image does.
for limit in (250, 100, resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    refused = 0
    for i in range(20):
        try:
            writer.add_image(image + i, len(writer), 0.5)
        except OSError:
            refused += 1
    print(refused, len(writer))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sys.stdout.flush()
import os
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="the size of files has no limit here")
def test_a_disk_that_was_full_for_a_while(tmp_path: Path) -> None:
    root = tmp_path / "r"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(root)], check=False, capture_output=True, text=True
    )
    # (250 - 8) // 20 records of 20 bytes fit.
    assert done.stdout.split("\n")[:3] == ["8 12", "20 12", "0 32"], done.stderr
    for _ in range(2):
        store = imgstore_zarr.open(root)
        assert store.index.frame_number.tolist() == list(range(32))
        offsets = [*range(12), *range(20)]
        assert store.frames[:, 0, 0].tolist() == offsets
        imgstore_zarr.repair(root)


def test_an_index_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "r"
    images = pictures()
    writer = imgstore_zarr.create(root, "png/dir", SHAPE, chunksize=4)
    for i in range(6):
        writer.add_image(images[i], NUMBERS[i], TIMES[i])
    writer.add_extra_data(a=1)
    with monkeypatch.context() as patch:
        broken = Broken(type(writer._location).write, 1, FULL, done=False)
        patch.setattr(type(writer._location), "write", broken)
        with pytest.raises(OSError, match="No space left"):
            writer.close()
    store = imgstore_zarr.open(root)
    np.testing.assert_array_equal(store.frames[...], images[:6])
    assert [p.kind for p in store.report().problems] == ["repair-due"]
    assert imgstore_zarr.repair(root).ok
    np.testing.assert_array_equal(imgstore_zarr.open(root).frames[...], images[:6])


# Interrupted writers

WRITER = """
import sys
import numpy as np
import imgstore_zarr

writer = imgstore_zarr.create(sys.argv[1], sys.argv[2], (64, 96), np.uint16, chunksize=7)
for i in range(100_000):
    image = np.random.default_rng(i).integers(0, 1000, (64, 96), np.uint16)
    writer.add_image(image, 1000 + i, i / 8)
    writer.add_extra_data(step=i)
    print(i, flush=True)
"""


@pytest.mark.parametrize("format", ["npy/dir", "png/dir", "bpk/dir", "tif/dir"])
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_writer(tmp_path: Path, format: str, seed: int) -> None:
    root = tmp_path / "r"
    command = [sys.executable, "-c", WRITER, str(root), format]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.Random(seed).uniform(0, 0.15))
        process.kill()
        acknowledged = 1 + len([line for line in process.stdout if line.endswith("\n")])

    def check() -> int:
        with imgstore_zarr.open(root) as store:
            count = store.frame_count
            assert acknowledged <= count <= acknowledged + 1
            for i, (image, (number, frame_time)) in enumerate(store):
                expected = np.random.default_rng(i).integers(0, 1000, (64, 96), np.uint16)
                np.testing.assert_array_equal(image, expected, strict=True)
                assert (number, frame_time) == (1000 + i, i / 8)
        return count

    before = check()
    # Nothing is due where it was killed between two chunks.
    due = {"repair-due", "extra-data-damaged"}
    assert {p.kind for p in imgstore_zarr.open(root).report().problems} <= due
    assert imgstore_zarr.repair(root).ok
    assert check() == before
    assert not [name for name in tree(root) if "journal" in name or "lock" in name]
    table = imgstore_zarr.open(root).get_extra_data()
    assert table is not None
    steps = table["step"].tolist()
    assert steps == [*range(len(steps))]
    assert before - 1 <= len(steps) <= before
    assert imgstore_zarr.repair(root).ok


def interrupted(root: Path, count: int) -> list[Image]:
    """A recording whose writer did not come to its end."""
    images = pictures(count)
    sink = imgstore_zarr.create(root, "png/dir", SHAPE, chunksize=4)
    for i, image in enumerate(images):
        sink.add_image(image, NUMBERS[i], TIMES[i])
    inner = sink._sink
    assert isinstance(inner, DirectorySink)
    assert inner._journal is not None
    inner._journal.close()
    inner._recording._lock.release()
    return images


def test_frames_that_are_lost(tmp_path: Path) -> None:
    root = tmp_path / "r"
    images = interrupted(root, 8)
    path = root / "000001" / "000002.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CorruptChunkError, match=r"000002\.png"):
        imgstore_zarr.open(root).get_image(frame_index=6)
    report = imgstore_zarr.repair(root)
    # What lies beyond the index is left there.
    kinds = [("chunk-length", 1), ("frames-lost", 1)]
    assert [(p.kind, p.chunk) for p in report.problems] == kinds
    np.testing.assert_array_equal(imgstore_zarr.open(root).frames[...], images[:6])


@pytest.mark.parametrize("content", [b"", b"half"])
def test_an_image_that_nobody_was_told_of_is_removed(tmp_path: Path, content: bytes) -> None:
    root = tmp_path / "r"
    images = interrupted(root, 6)
    (root / "000001" / "000002.png").write_bytes(content)
    store = imgstore_zarr.open(root)
    np.testing.assert_array_equal(store.frames[...], images)
    assert {problem.kind for problem in store.report().problems} == {"repair-due"}
    assert imgstore_zarr.repair(root).ok
    assert tree(root)[-4:] == [
        "000001/000000.png",
        "000001/000001.png",
        "000001/index.npz",
        "metadata.yaml",
    ]


def test_a_chunk_that_had_only_begun(tmp_path: Path) -> None:
    root = tmp_path / "r"
    images = interrupted(root, 5)
    folder = root / "000001"
    (journal,) = folder.glob("*.journal")
    journal.write_bytes(journal.read_bytes()[:13])
    assert len(decode_journal(journal.read_bytes())[0]) == 0
    np.testing.assert_array_equal(imgstore_zarr.open(root).frames[...], images[:4])
    assert imgstore_zarr.repair(root).ok
    np.testing.assert_array_equal(imgstore_zarr.open(root).frames[...], images[:4])
    assert [*folder.iterdir()] == []
    assert imgstore_zarr.open(root).report().ok
