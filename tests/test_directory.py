"""Recordings in directories of images, as imgstore writes them."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import yaml
from imgstore_compat import DirectoryLayout
from numpy.typing import NDArray
from zarr.storage import LocalStore

import imgstore_zarr
from imgstore_zarr import (
    ChunkMissingError,
    CorruptChunkError,
    InvalidMetadataError,
    RecordingAccessError,
    UnsupportedFormatError,
    UnsupportedVersionError,
)
from imgstore_zarr.storage import Directory
from imgstore_zarr.testing import Example, LayoutTests
from tests.test_image_files import BLOSCPACK

Image = NDArray[Any]

WHOLE_READ = Directory.read

SHAPE = (12, 17)
NUMBERS: Sequence[int] = (100, 101, 105, 106, 106, 107, 3, 4, 108, 200)
TIMES: Sequence[float] = tuple(1.7e9 + i / 25 for i in range(10))


def pictures(count: int = 10, shape: tuple[int, ...] = SHAPE, dtype: Any = np.uint8) -> list[Image]:
    random = np.random.default_rng(0)
    wanted = np.dtype(dtype)
    if wanted.kind == "f":
        return [random.normal(0, 1e3, shape).astype(wanted) for _ in range(count)]
    top = np.iinfo(wanted).max
    return [random.integers(0, top, shape, wanted, endpoint=True) for _ in range(count)]


def write_metadata(root: Path, images: Sequence[Image], **store: Any) -> None:
    keys = {
        "class": "DirectoryImgStore",
        "version": 2,
        "format": "png",
        "imgshape": list(images[0].shape),
        "imgdtype": images[0].dtype.name,
        "chunksize": 4,
        "encoding": None,
        "uuid": "0123456789abcdef0123456789abcdef",
        "created_utc": "2024-03-01T10:20:30.123456",
        "timezone_local": "Europe/Vienna",
    } | store
    root.mkdir(parents=True, exist_ok=True)
    (root / "metadata.yaml").write_text(yaml.safe_dump({"camera": "top", "__store": keys}))


def write_image(path: Path, image: Image) -> None:
    if path.suffix == ".npy":
        np.save(path, image)
    else:
        cv2.imwrite(str(path), image)


def write_index(folder: Path, numbers: Sequence[int], times: Sequence[float]) -> None:
    """As imgstore does, with the metadata beside the columns, some of them pickled."""
    np.savez(
        folder / "index.npz",
        frame_number=np.array(numbers, int),
        frame_time=np.array(times, float),
        encoding=np.array(None, object),
        format="png",
    )


def recording(
    root: Path,
    images: Sequence[Image],
    *,
    chunks: Sequence[int] = (0, 1, 2),
    extra: Mapping[int, Sequence[Mapping[str, Any]]] | None = None,
    **store: Any,
) -> Path:
    """A recording of chunks of four images."""
    write_metadata(root, images, **store)
    for i, chunk in enumerate(chunks):
        folder = root / f"{chunk:06d}"
        folder.mkdir()
        span = slice(4 * i, 4 * i + 4)
        for place, image in enumerate(images[span]):
            write_image(folder / f"{place:06d}.{store.get('format', 'png')}", image)
        write_index(folder, NUMBERS[span], TIMES[span])
        if extra and i in extra:
            (folder / "index.extra.json").write_text(json.dumps(extra[i]))
    return root


def opencv(root: Path, images: Sequence[Image], kind: str) -> list[Image]:
    """What OpenCV reads of the first images of a recording."""
    flags = cv2.IMREAD_COLOR if images[0].ndim == 3 else cv2.IMREAD_GRAYSCALE
    paths = [root / f"{i // 4:06d}" / f"{i % 4:06d}.{kind}" for i in range(len(images))]
    return [np.asarray(cv2.imread(str(path), flags)) for path in paths]


class TestPng(LayoutTests):
    def recording(self, directory: Path) -> Example:
        images = pictures()
        records = [
            {"temperature": i / 8, "frame_index": i, "frame_number": NUMBERS[i]} for i in range(10)
        ]
        extra = {0: records[1:4], 2: records[8:]}
        root = recording(directory / "recording", images, extra=extra)
        # Made by imgstore for the images to come.
        (root / "000003").mkdir()
        return Example(root, images, NUMBERS, TIMES, [*records[1:4], *records[8:]])


class TestColorJpg(LayoutTests):
    def recording(self, directory: Path) -> Example:
        images = pictures(shape=(*SHAPE, 3))
        root = recording(directory / "recording", images, format="jpg")
        return Example(root, opencv(root, images, "jpg"), NUMBERS, TIMES)


class TestVolumesInNpy(LayoutTests):
    def recording(self, directory: Path) -> Example:
        images = pictures(shape=(*SHAPE, 5), dtype=np.float32)
        root = recording(directory / "recording", images, format="npy", chunks=(2, 3, 4))
        return Example(root, images, NUMBERS, TIMES)


class TestElsewhere(LayoutTests):
    """In a Zarr store, such as one of objects."""

    def recording(self, directory: Path) -> Example:
        images = pictures(dtype=np.uint16)
        root = recording(directory / "recording", images, format="tif")
        return Example(LocalStore(root, read_only=True), images, NUMBERS, TIMES)

    def contents(self, example: Example) -> object:
        files = [file for file in example.location.root.rglob("*") if file.is_file()]
        return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


# What imgstore wrote


def test_metadata(tmp_path: Path) -> None:
    store = imgstore_zarr.open(recording(tmp_path / "r", pictures()))
    assert store.format == "png"
    assert store.info.layout == "directory"
    assert store.chunks == [0, 1, 2]
    assert store.info.chunksize == 4
    assert store.user_metadata == {"camera": "top"}
    assert store.uuid == "0123456789abcdef0123456789abcdef"
    assert store.lossless
    assert store.report().ok
    assert store.frames.source.preferred_chunks == (1, *SHAPE)


@pytest.mark.parametrize("kind", ["png", "tif", "bmp", "ppm", "pgm", "jpg"])
@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3)], ids=["gray", "color"])
def test_images_are_read_as_opencv_reads_them(
    tmp_path: Path, kind: str, shape: tuple[int, ...]
) -> None:
    given = pictures(shape=shape)
    # As imgstore does before it writes.
    if kind == "ppm" and len(shape) == 2:
        given = [np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)) for image in given]
    if kind == "pgm" and len(shape) == 3:
        given = [np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)) for image in given]
    root = recording(tmp_path / "r", given, format=kind, imgshape=list(shape))
    store = imgstore_zarr.open(root)
    expected = opencv(root, pictures(shape=shape), kind)
    np.testing.assert_array_equal(store.frames[...], expected, strict=True)
    assert store.lossless == (kind != "jpg" and (kind, len(shape)) != ("pgm", 3))


@pytest.mark.parametrize("kind", ["png", "tif", "ppm", "pgm", "npy"])
def test_16_bits_stay_16_bits(tmp_path: Path, kind: str) -> None:
    images = pictures(shape=(*SHAPE, 3) if kind == "ppm" else SHAPE, dtype=np.uint16)
    root = recording(tmp_path / "r", images, format=kind)
    np.testing.assert_array_equal(imgstore_zarr.open(root).frames[...], images, strict=True)


def test_encoded_images_are_decoded(tmp_path: Path) -> None:
    images = pictures()
    root = recording(tmp_path / "r", images, encoding="cv_bayerrg")
    store = imgstore_zarr.open(root)
    assert store.image_shape == (*SHAPE, 3)
    expected = [cv2.cvtColor(image, cv2.COLOR_BayerRG2BGR) for image in images]
    np.testing.assert_array_equal(store.frames[...], expected)
    store.disable_decoding()
    np.testing.assert_array_equal(store.frames[...], images)


def test_numbers_of_chunks(tmp_path: Path) -> None:
    root = recording(tmp_path / "r", pictures(), chunks=(3, 4, 1_000_000))
    (root / "notes").mkdir()
    (root / "7").mkdir()
    store = imgstore_zarr.open(root)
    assert store.chunks == [3, 4, 1_000_000]
    assert store.index.frame_number.tolist() == list(NUMBERS)
    np.testing.assert_array_equal(store.frames[...], pictures())
    (problem,) = store.report().problems
    assert "no files of chunks 5 .. 999999 between chunks 4 and 1000000" in problem.message


def test_an_index_of_yaml_and_chunks_of_no_frames(tmp_path: Path) -> None:
    root = recording(tmp_path / "r", pictures())
    (root / "000000" / "index.npz").unlink()
    columns = {"frame_number": list(NUMBERS[:4]), "frame_time": list(TIMES[:4])}
    (root / "000000" / "index.yaml").write_text(yaml.safe_dump(columns))
    (root / "000003").mkdir()
    write_index(root / "000003", [], [])
    store = imgstore_zarr.open(root)
    assert store.index.frame_number.tolist() == list(NUMBERS)
    assert store.chunks == [0, 1, 2]
    assert store.report().ok


def test_one_channel_is_gray(tmp_path: Path) -> None:
    images = pictures()
    root = recording(tmp_path / "r", images, imgshape=[*SHAPE, 1])
    np.testing.assert_array_equal(imgstore_zarr.open(root).frames[...], images)


def test_extra_data_of_motif(tmp_path: Path) -> None:
    root = recording(tmp_path / "r", pictures(), extra={1: [{"a": 5, "frame_number": 106}]})
    with h5py.File(root / "000000.extra_data.h5", "w") as file:
        file.attrs["datasets"] = "data"
        data = file.create_dataset("data", data=np.arange(4.0)[None])
        data.attrs["column_names"] = "a"
        camera = np.zeros(4, [("frame_number", int), ("frame_time", float), ("frame_index", int)])
        camera["frame_number"] = NUMBERS[:4]
        file.create_dataset("camera", data=camera)
        file.create_dataset("sample_delay", data=np.zeros(4))
    table = imgstore_zarr.open(root).get_extra_data()
    assert table is not None
    assert table["a"].tolist() == [0, 1, 2, 3, 5]
    assert table["frame_number"].tolist() == [*NUMBERS[:4], 106]


def test_one_frame_without_the_index(tmp_path: Path) -> None:
    images = pictures()
    root = recording(tmp_path / "r", images)
    for position, image in enumerate(images):
        read = imgstore_zarr.extract_only_frame(str(root / "metadata.yaml"), position)
        np.testing.assert_array_equal(read, image, strict=True)
        read[...] = 0
    with pytest.raises(imgstore_zarr.FrameNotFoundError):
        imgstore_zarr.extract_only_frame(str(root), 10)
    # The indexes of later chunks do not matter.
    (root / "000002" / "index.npz").write_bytes(b"")
    np.testing.assert_array_equal(imgstore_zarr.extract_only_frame(str(root), 5), images[5])


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures()
    store = imgstore_zarr.open(recording(tmp_path / "r", images))
    keys: list[str] = []
    read = Directory.read

    def counted(self: Directory, key: str) -> bytes:
        keys.append(key)
        return read(self, key)

    monkeypatch.setattr(Directory, "read", counted)
    positions = np.array([9, 1, 1, 9, 4, 1])
    frames = store.frames.source.read(positions)
    np.testing.assert_array_equal(frames, [images[i] for i in positions])
    assert sorted(keys) == ["000000/000001.png", "000001/000000.png", "000002/000001.png"]


def test_the_marker_of_another_layout_counts_first(tmp_path: Path) -> None:
    root = recording(tmp_path / "r", pictures())
    (root / "zarr.json").write_text("{}")
    with pytest.raises(InvalidMetadataError, match=r"zarr\.json"):
        imgstore_zarr.open(root)


def test_renumbering(tmp_path: Path) -> None:
    records = [{"a": 1, "frame_index": 5, "frame_number": NUMBERS[5]}]
    root = recording(tmp_path / "r", pictures(), extra={1: records})
    index = imgstore_zarr.open(root).index
    layout = DirectoryLayout()
    layout.renumber(Directory(root), index, np.arange(-3, 7))
    store = imgstore_zarr.open(root)
    assert store.index.frame_number.tolist() == list(range(-3, 7))
    assert store.index.frame_time.tolist() == list(TIMES)
    table = store.get_extra_data()
    assert table is not None
    assert table["frame_number"].tolist() == [2]
    with np.load(root / "000001" / "index.npz") as columns:
        assert columns["_frame_number_before_reindex"].tolist() == list(NUMBERS[4:8])
    np.testing.assert_array_equal(store.get_image(2)[0], pictures()[5])


# What is not as it should be


@pytest.mark.parametrize(
    ("store", "error", "message"),
    [
        ({"format": "webp"}, UnsupportedFormatError, "webp.*known are npy"),
        ({"imgshape": [12, 17, 4]}, UnsupportedFormatError, r"\(12, 17, 4\)"),
        ({"imgshape": [12, 0]}, InvalidMetadataError, "imgshape"),
        ({"imgdtype": "uint7"}, InvalidMetadataError, "imgdtype"),
        ({"version": 3}, UnsupportedVersionError, "version"),
    ],
)
def test_metadata_that_cannot_be(
    tmp_path: Path, store: dict[str, Any], error: type[Exception], message: str
) -> None:
    write_metadata(tmp_path / "r", pictures(), **store)
    with pytest.raises(error, match=message):
        imgstore_zarr.open(tmp_path / "r")


def test_chunks_without_index(tmp_path: Path) -> None:
    root = recording(tmp_path / "r", pictures())
    (root / "000001" / "index.npz").unlink()
    (root / "000002" / "index.npz").write_bytes(b"damaged")
    store = imgstore_zarr.open(root)
    assert store.index.frame_number.tolist() == list(NUMBERS[:4])
    problems = {(problem.chunk, problem.kind) for problem in store.report().problems}
    assert problems == {(1, "chunk-without-index"), (2, "index-damaged")}


def test_a_chunk_that_went_away(tmp_path: Path) -> None:
    root = recording(tmp_path / "r", pictures())
    with imgstore_zarr.open(root) as whole:
        index = whole.index
    (root / "000001").rename(tmp_path / "elsewhere")
    store = imgstore_zarr.open(root, index=index)
    assert [(p.kind, p.chunk) for p in store.report().problems] == [("chunk-missing", 1)]
    with pytest.raises(ChunkMissingError, match=r"000001\.png of chunk 1 is missing"):
        store.get_image(frame_index=5)
    np.testing.assert_array_equal(store.frames[8], pictures()[8])


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def blank(path: Path) -> None:
    path.write_bytes(b"")


def narrower(path: Path) -> None:
    shape = (12, 16, 3) if path.suffix == ".ppm" else (12, 16)
    write_image(path, np.zeros(shape, np.uint8))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [truncated, blank, narrower, folder])
def test_a_damaged_image(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    images = pictures()
    root = recording(tmp_path / "r", images)
    damage(root / "000001" / "000002.png")
    store = imgstore_zarr.open(root)
    with pytest.raises(CorruptChunkError) as raised:
        store.get_image(frame_index=6)
    for part in (str(root), "chunk 1", "000002.png", "(12, 17)", "uint8"):
        assert part in str(raised.value)
    if damage is narrower:
        assert "(12, 16)" in str(raised.value)
    with pytest.raises(CorruptChunkError):
        _ = store.frames[...]
    np.testing.assert_array_equal(store.frames[[5, 7]], images[5:8:2])


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("png", "uint16"),
        ("tif", "uint16"),
        ("tif", "float32"),
        ("pgm", "uint16"),
        ("npy", "uint16"),
        ("npy", "int8"),
    ],
)
def test_an_image_of_another_dtype(
    tmp_path: Path, kind: str, other: str, capfd: pytest.CaptureFixture[str]
) -> None:
    images = pictures()
    root = recording(tmp_path / "r", images, format=kind)
    write_image(root / "000001" / f"000002.{kind}", images[6].astype(other))
    store = imgstore_zarr.open(root)
    with pytest.raises(
        CorruptChunkError, match=rf"000002\.{kind} of chunk 1 .*holds {other}.* uint8"
    ):
        store.get_image(frame_index=6)
    np.testing.assert_array_equal(store.frames[[5, 7]], images[5:8:2])
    (problem,) = store.report().problems
    assert (problem.kind, problem.chunk) == ("chunk-damaged", 1)
    assert f"holds {other}" in problem.message
    assert capfd.readouterr().err == ""


def test_an_image_that_is_missing(tmp_path: Path) -> None:
    root = recording(tmp_path / "r", pictures())
    (root / "000002" / "000000.png").unlink()
    with pytest.raises(ChunkMissingError, match=r"000000\.png of chunk 2"):
        imgstore_zarr.open(root).get_image(frame_index=8)


def test_inspection_finds_what_is_missing(tmp_path: Path) -> None:
    root = recording(tmp_path / "r", pictures(), extra={0: [{"a": 1}]})
    index = imgstore_zarr.open(root).index
    layout = DirectoryLayout()
    assert layout.inspect(Directory(root), index) == ()
    (root / "000001" / "000002.png").unlink()
    (root / "000000" / "index.extra.json").write_text("[{")
    found = layout.inspect(Directory(root), index)
    assert {problem.kind for problem in found} == {"chunk-damaged", "extra-data-damaged"}
    assert "000002.png of chunk 1" in found[0].message


KINDS = ["npy", "png", "tif", "bmp", "ppm", "pgm", "jpg"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", [truncated, blank, narrower, Path.unlink])
def test_the_report_lists_damaged_images(
    tmp_path: Path, kind: str, damage: Callable[[Path], None]
) -> None:
    shape = (*SHAPE, 3) if kind == "ppm" else SHAPE
    root = recording(tmp_path / "r", pictures(shape=shape), format=kind)
    assert imgstore_zarr.open(root).report().ok
    for place in (1, 3):
        damage(root / "000001" / f"{place:06d}.{kind}")
    store = imgstore_zarr.open(root)
    (problem,) = store.report().problems
    assert (problem.kind, problem.chunk) == ("chunk-damaged", 1)
    assert problem.message.startswith(f"{root}: 2 of 4 images of chunk 1 ")
    assert f"000001.{kind}" in problem.message
    for position in (5, 7):
        with pytest.raises((ChunkMissingError, CorruptChunkError), match="chunk 1"):
            store.get_image(frame_index=position)
    for position in (4, 6, 8):
        store.get_image(frame_index=position)


def test_the_report_reads_few_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = imgstore_zarr.open(recording(tmp_path / "r", pictures()))
    read = []

    def counting(self: Directory, key: str) -> bytes:
        read.append(key)
        return WHOLE_READ(self, key)

    monkeypatch.setattr(Directory, "read", counting)
    assert store.report().ok
    # The first of each chunk, as a measure of what is usual.
    images = [key for key in read if key.endswith(".png")]
    assert images == [f"{chunk:06d}/000000.png" for chunk in range(3)]


def test_images_that_no_index_names(tmp_path: Path) -> None:
    root = recording(tmp_path / "r", pictures())
    write_image(root / "000002" / "000002.png", pictures()[0])
    (problem,) = imgstore_zarr.open(root).report().problems
    assert (problem.kind, problem.chunk) == ("chunk-length", 2)
    assert "has 3 images, its index 2" in problem.message


def test_the_dtype_of_npy_files_counts(tmp_path: Path) -> None:
    # imgstore says uint8 unless it is told otherwise, and saves what it is given.
    images = pictures(dtype=np.uint16)
    root = recording(tmp_path / "r", images, format="npy", imgdtype="uint8")
    store = imgstore_zarr.open(root)
    assert store.dtype == np.uint16
    np.testing.assert_array_equal(store.frames[...], images)
    np.testing.assert_array_equal(imgstore_zarr.extract_only_frame(root, 3), images[3])
    np.save(root / "000001" / "000001.npy", images[0].astype(np.float32))
    with pytest.raises(CorruptChunkError, match=r"000001\.npy of chunk 1 .* uint16"):
        store.get_image(frame_index=5)


@pytest.mark.parametrize("name", BLOSCPACK)
def test_the_dtype_of_bpk_files_counts(tmp_path: Path, name: str) -> None:
    image, text = BLOSCPACK[name]
    root = recording(tmp_path / "r", [image] * 5, chunks=[], format="bpk", imgdtype="int16")
    for chunk, count in enumerate((4, 1)):
        folder = root / f"{chunk:06d}"
        folder.mkdir()
        for place in range(count):
            (folder / f"{place:06d}.bpk").write_bytes(zlib.decompress(base64.b85decode(text)))
        write_index(folder, range(count), range(count))
    store = imgstore_zarr.open(root)
    assert store.dtype == image.dtype
    np.testing.assert_array_equal(store.frames[...], [image] * 5)
    assert store.report().ok
    # Where the first image is damaged, the next chunk says it.
    (root / "000000" / "000000.bpk").write_bytes(b"no image")
    store = imgstore_zarr.open(root)
    np.testing.assert_array_equal(store.get_image(frame_index=4)[0], image)


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_an_image_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    store = imgstore_zarr.open(recording(tmp_path / "r", pictures(), format=kind))

    def refused(self: Directory, key: str) -> bytes:
        raise PermissionError(13, "Permission denied", key)

    monkeypatch.setattr(Directory, "read", refused)
    monkeypatch.setattr(Directory, "open", refused)
    with pytest.raises(RecordingAccessError, match=rf"000000/000000\.{kind}"):
        store.get_next_image()
