"""The Zarr layout, by the public test kit and by what only it promises."""

# ruff: noqa: RUF012 - nobody writes to options

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr.storage
from numpy.typing import DTypeLike, NDArray

import imgstore_zarr
from imgstore_zarr.native import columns, metadata
from imgstore_zarr.testing import Example, WritableLayoutTests

DTYPES = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
DTYPES += [f"float{bits}" for bits in (16, 32, 64)]
INFLIGHT = ".inflight"
FORMATS = ("raw/zarr", "lz4/zarr", "zstd/zarr")


class TestRaw(WritableLayoutTests):
    format = "raw/zarr"
    imgshape = (11, 13)


class TestRawColour(WritableLayoutTests):
    format = "raw/zarr"
    imgshape = (8, 9, 3)
    imgdtype = np.uint16


class TestLz4(WritableLayoutTests):
    format = "lz4/zarr"
    imgshape = (8, 9, 3)


class TestZstd(WritableLayoutTests):
    format = "zstd/zarr"
    imgshape = (11, 13)
    imgdtype = np.float32


class TestDurable(WritableLayoutTests):
    format = "zstd/zarr"
    imgshape = (11, 13)
    options = {"chunksize": 4, "durable": True}


class TestSeveralFramesAnInnerChunk(WritableLayoutTests):
    format = "zstd/zarr"
    imgshape = (11, 13)
    options = {"chunksize": 6, "inner_chunks": (3, 11, 13)}


class TestTiles(WritableLayoutTests):
    format = "raw/zarr"
    imgshape = (11, 13, 3)
    options = {"chunksize": 4, "inner_chunks": (2, 4, 5, 1)}


class InMemory(WritableLayoutTests):
    """In a Zarr store, which is no directory."""

    def destination(self, directory: Path) -> zarr.storage.MemoryStore:
        if not hasattr(self, "_memory"):
            self._memory = zarr.storage.MemoryStore()
        return self._memory

    def contents(self, example: Example) -> object:
        return {key: value.to_bytes() for key, value in example.location._store_dict.items()}


class TestRawInMemory(InMemory):
    format = "raw/zarr"
    imgshape = (8, 9, 3)


class TestZstdInMemory(InMemory):
    format = "zstd/zarr"
    imgshape = (11, 13)
    options = {"chunksize": 6, "inner_chunks": (3, 6, 6)}


def bits(dtype: DTypeLike, count: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """Images whose every bit is random: among floats NaNs with payloads, infinities, subnormals."""
    dtype = np.dtype(dtype)
    random = np.random.default_rng(dtype.itemsize)
    data = random.integers(0, 256, count * int(np.prod(shape)) * dtype.itemsize, np.uint8)
    images = data.view(dtype).reshape(count, *shape)
    if dtype.kind == "f":
        unsigned = np.dtype(f"u{dtype.itemsize}")
        quiet = np.array(np.nan, dtype).view(unsigned)
        images[:, 0, :4] = np.array([quiet, quiet | 5, quiet | 1 << 8 * dtype.itemsize - 1, 1]).astype(
            unsigned
        ).view(dtype)  # fmt: skip
        images[:, 1, :3] = np.inf, -np.inf, -0.0
    return images


def record(location: Any, format: str, images: NDArray[Any], **options: Any) -> None:
    dtype = images.dtype.newbyteorder("=")
    with imgstore_zarr.create(location, format, images.shape[1:], dtype, **options) as writer:
        for i, image in enumerate(images):
            writer.add_image(image, i, float(i))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_bit_exact(tmp_path: Path, dtype: str, format: str) -> None:
    images = bits(dtype, 7, (9, 10))
    record(tmp_path / "r", format, images, chunksize=3)
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert store.dtype == np.dtype(dtype)
        assert store.frames[...].tobytes() == images.tobytes()
        assert store.frames[2:6, 3:5, 1:4].tobytes() == images[2:6, 3:5, 1:4].tobytes()
        assert store.to_xarray(chunks=3).values.tobytes() == images.tobytes()


@pytest.mark.parametrize("dtype", [np.dtype(name).newbyteorder(">") for name in DTYPES], ids=str)
def test_big_endian_images(tmp_path: Path, dtype: np.dtype[Any]) -> None:
    images = bits(dtype.newbyteorder("="), 3, (5, 6)).astype(dtype)
    record(tmp_path / "r", "zstd/zarr", images)
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert store.dtype.isnative
        assert store.frames[...].tobytes() == images.astype(dtype.newbyteorder("=")).tobytes()


@pytest.mark.parametrize("dtype", ["complex64", "bool", "M8[s]", "S4", "O", "V3", np.longdouble])
def test_other_dtypes_are_refused(tmp_path: Path, dtype: DTypeLike) -> None:
    with pytest.raises(imgstore_zarr.UnsupportedFormatError, match="cannot be recorded"):
        imgstore_zarr.create(tmp_path / "r", "raw/zarr", (4, 4), dtype)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "inner",
    [(1, 11, 13, 3), (4, 11, 13, 3), (1, 4, 13, 3), (2, 4, 5, 3), (2, 4, 5, 1), (4, 1, 1, 2),
     (8, 32, 32, 4)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("format", ["raw/zarr", "zstd/zarr"])
def test_inner_chunks(tmp_path: Path, inner: tuple[int, ...], format: str) -> None:
    images = bits(np.uint8, 19, (11, 13, 3))
    record(tmp_path / "r", format, images, chunksize=8, inner_chunks=inner)
    keys = [17, 3, 3, 8, 7, 0]
    with imgstore_zarr.open(tmp_path / "r") as store:
        np.testing.assert_array_equal(store.frames[...], images)
        np.testing.assert_array_equal(store.frames[keys], images[keys])
        for window in (np.s_[3:5, 4:10], np.s_[4:8, 5:6], np.s_[10:11, 12:13], np.s_[0:11, 0:1]):
            np.testing.assert_array_equal(store.frames[(keys, *window)], images[(keys, *window)])


@pytest.mark.parametrize(
    ("imgshape", "dtype", "inner"),
    [((1024, 1024), "uint8", None), ((1000, 1500, 3), "uint16", None), ((30, 30), "uint8", None),
     ((512, 512), "float32", (48, 512, 512)), ((8192, 8192, 3), "uint8", None)],
)  # fmt: skip
def test_default_chunksize_is_about_64_mib(
    tmp_path: Path, imgshape: tuple[int, ...], dtype: str, inner: tuple[int, ...] | None
) -> None:
    imgstore_zarr.create(tmp_path / "r", "raw/zarr", imgshape, dtype, inner_chunks=inner).close()
    frames, *_ = zarr.open_array(tmp_path / "r" / "image", mode="r").shards or ()
    frame_bytes = int(np.prod(imgshape)) * np.dtype(dtype).itemsize
    group = inner[0] if inner else 1
    assert frames % group == 0
    assert frames == group or 2**26 - group * frame_bytes < frames * frame_bytes <= 2**26


@pytest.mark.parametrize(
    ("format", "cname"),
    [("raw/zarr", None), ("npy", None), ("lz4/zarr", "lz4"), ("bpk", "lz4")]
    + [(name, "zstd") for name in ("zstd/zarr", "png", "tif", "bmp", "pgm", "ppm")]
    + [(name, "zstd") for name in ("png+color", "tif+color", "bmp+color")],
)
def test_formats_of_imgstore(tmp_path: Path, format: str, cname: str | None) -> None:
    image = bits(np.uint8, 1, (8, 8))[0]
    record(tmp_path / "r", format, image[None])
    (sharding,) = json.loads((tmp_path / "r" / "image" / "zarr.json").read_text())["codecs"]
    blosc = [codec for codec in sharding["configuration"]["codecs"] if codec["name"] == "blosc"]
    assert [codec["configuration"]["cname"] for codec in blosc] == ([cname] if cname else [])
    assert all(codec["configuration"]["shuffle"] == "bitshuffle" for codec in blosc)
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert store.format == {None: "raw/zarr", "lz4": "lz4/zarr", "zstd": "zstd/zarr"}[cname]
        np.testing.assert_array_equal(store.frames[0], image)


def test_ppm_stores_colour_and_pgm_gray(tmp_path: Path) -> None:
    gray = bits(np.uint8, 1, (8, 8))[0]
    colour = np.repeat(gray[..., None], 3, axis=2)
    record(tmp_path / "ppm", "ppm", gray[None])
    record(tmp_path / "pgm", "pgm", colour[None])
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "ppm" / "image", mode="r")[0], colour)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "pgm" / "image", mode="r")[0], gray)
    for dtype in (np.int16, np.float32, np.uint64):
        with pytest.raises(imgstore_zarr.UnsupportedFormatError, match="zstd/zarr"):
            imgstore_zarr.create(tmp_path / "no", "pgm", (8, 8), dtype)


@pytest.mark.parametrize("format", ["png+color", "tif+color", "bmp+color", "zstd/zarr"])
def test_encodings(tmp_path: Path, format: str) -> None:
    import cv2

    raw = bits(np.uint8, 2, (8, 10))
    decoded = np.stack([cv2.cvtColor(image, cv2.COLOR_BayerRG2BGR) for image in raw])
    record(tmp_path / "r", format, raw, encoding="cv_bayerrg")
    stored = zarr.open_array(tmp_path / "r" / "image", mode="r")[...]
    np.testing.assert_array_equal(stored, decoded if format.endswith("+color") else raw)
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert store.image_shape == (8, 10, 3)
        np.testing.assert_array_equal(store.frames[...], decoded)
        np.testing.assert_array_equal(store.frames[1, 2:4, 3:7], decoded[1, 2:4, 3:7])
        store.disable_decoding()
        np.testing.assert_array_equal(store.frames[...], stored)


def test_durable_syncs_every_file_and_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was synced, and what was given its name only afterwards, is what power loss leaves."""
    synced: set[tuple[int, int]] = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        state = os.fstat(descriptor)
        synced.add((state.st_dev, state.st_ino))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    root = tmp_path / "r"
    with imgstore_zarr.create(root, "raw/zarr", (4, 4), chunksize=2, durable=True) as writer:
        for i in range(5):
            writer.add_image(np.full((4, 4), i, np.uint8), i, float(i))
        writer.add_extra_data(a=1)
        writer.flush()
        wanted = [path for path in (tmp_path, root, *root.rglob("*")) if INFLIGHT not in path.parts]
        wanted.append(root / INFLIGHT / "extra.jsonl")
        states = {path.relative_to(tmp_path): path.stat() for path in wanted}
    left_out = [str(p) for p, s in states.items() if (s.st_dev, s.st_ino) not in synced]
    assert left_out == []


def test_without_durable_nothing_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: pytest.fail("fsync was called"))
    record(tmp_path / "r", "raw/zarr", bits(np.uint8, 5, (4, 4)), chunksize=2)


def test_coordinates_of_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 131072 frames take too long here.
    monkeypatch.setattr(metadata, "COLUMN_CHUNK", 8)
    monkeypatch.setattr(columns, "COLUMN_CHUNK", 8)
    random = np.random.default_rng(2)
    numbers, times = random.integers(-(2**62), 2**62, 50), random.normal(size=50)
    with imgstore_zarr.create(tmp_path / "r", "raw/zarr", (1, 1), chunksize=7) as writer:
        for i in range(50):
            writer.add_image(np.full((1, 1), i, np.uint8), int(numbers[i]), float(times[i]))
            writer.add_extra_data(value=i, text="x" * i)
            if i % 3 == 0:
                writer.flush()
                with imgstore_zarr.open(tmp_path / "r") as store:
                    np.testing.assert_array_equal(store.index.frame_number, numbers[: i + 1])
    assert len([*(tmp_path / "r" / "frame_number" / "c").iterdir()]) == 7
    with imgstore_zarr.open(tmp_path / "r") as store:
        np.testing.assert_array_equal(store.index.frame_number, numbers)
        np.testing.assert_array_equal(store.index.frame_time, times)
        np.testing.assert_array_equal(store.frames[:, 0, 0], np.arange(50))
        table = store.get_extra_data()
        assert table is not None
        assert table["value"].tolist() == [*range(50)]
        assert table["text"].tolist() == ["x" * i for i in range(50)]
    group = zarr.open_group(tmp_path / "r", mode="r")
    np.testing.assert_array_equal(group["frame_number"][:], numbers)  # type: ignore[index]


def test_a_durable_recording_syncs_full_chunks_of_coordinates_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "COLUMN_CHUNK", 4)
    monkeypatch.setattr(columns, "COLUMN_CHUNK", 4)
    test_durable_syncs_every_file_and_directory(tmp_path, monkeypatch)
