"""What reading costs: opened shards, read indexes, reads and their bytes, counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr.native import reader
from imgstore_zarr.native.codecs import CHECKSUM_BYTES
from imgstore_zarr.storage import FileBlob

SHAPE = (32, 48)
CHUNKSIZE, COUNT = 8, 400
IMAGES = np.random.default_rng(6).integers(0, 256, (COUNT, *SHAPE), np.uint8)
FRAME = 32 * 48 + CHECKSUM_BYTES


class Reads:
    """Counts what is asked of the files of a recording."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: Counter[str] = Counter()
        self.bytes = 0
        tail, read_into = FileBlob.tail, FileBlob.read_into

        def counted_tail(blob: FileBlob, nbytes: int) -> bytes:
            self.calls["index"] += 1
            return tail(blob, nbytes)

        def counted_read(blob: FileBlob, offset: int, buffers: Sequence[NDArray[np.uint8]]) -> int:
            self.calls["read"] += 1
            got = read_into(blob, offset, buffers)
            self.bytes += got
            return got

        patch.setattr(FileBlob, "tail", counted_tail)
        patch.setattr(FileBlob, "read_into", counted_read)

    def take(self) -> tuple[int, int, int]:
        """How many indexes, reads and bytes there were since the last time."""
        found = self.calls["index"], self.calls["read"], self.bytes
        self.calls.clear()
        self.bytes = 0
        return found


def record(path: Path, format: str = "raw/zarr", **options: Any) -> Path:
    with imgstore_zarr.create(path, format, SHAPE, chunksize=CHUNKSIZE, **options) as writer:
        for i, image in enumerate(IMAGES):
            writer.add_image(image, i, i / 25)
    return path


def test_frames_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = imgstore_zarr.open(record(tmp_path / "r"))
    reads = Reads(monkeypatch)
    store.frames[3]
    assert reads.take() == (1, 1, FRAME)
    for position in (5, 3, 7, 0):
        store.frames[position]
    assert reads.take() == (0, 4, 4 * FRAME)
    store.frames[0:8]
    assert reads.take() == (0, 1, 8 * FRAME)
    store.frames[4:21]
    assert reads.take() == (2, 3, 17 * FRAME)
    # Scattered and repeated ones: each once, neighbours together.
    store.frames[[40, 41, 42, 60, 41]]
    assert reads.take() == (2, 2, 4 * FRAME)
    out = np.empty((2, *SHAPE), np.uint8)
    assert store.frames.source.read(np.array([100, 101]), None, out) is out
    np.testing.assert_array_equal(out, IMAGES[100:102])


def test_compressed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = imgstore_zarr.open(record(tmp_path / "r", "zstd/zarr"))
    reads = Reads(monkeypatch)
    np.testing.assert_array_equal(store.frames[8:16], IMAGES[8:16])
    assert reads.take()[:2] == (1, 1)


def test_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = imgstore_zarr.open(record(tmp_path / "r", inner_chunks=(1, 8, 16)))
    tile = 8 * 16 + CHECKSUM_BYTES
    reads = Reads(monkeypatch)
    store.frames[0]
    reads.take()
    for key, tiles in (
        (np.s_[3, 0:8, 0:16], 1),
        (np.s_[3, 7:9, 15:17], 4),
        (np.s_[3, 9:15:2, 20:30], 1),
        (np.s_[2:4, :, 40:], 8),
    ):
        np.testing.assert_array_equal(store.frames[key], IMAGES[key])
        assert reads.take() == (0, tiles, tiles * tile), key


def test_groups_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = imgstore_zarr.open(record(tmp_path / "r", inner_chunks=(4, *SHAPE)))
    reads = Reads(monkeypatch)
    np.testing.assert_array_equal(store.frames[1:7], IMAGES[1:7])
    assert reads.take() == (1, 2, 2 * (4 * 32 * 48 + CHECKSUM_BYTES))


def open_shards(path: Path) -> int:
    links = (Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    return sum(
        str(link.readlink()).startswith(str(path / "image")) for link in links if link.exists()
    )


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files cannot be counted here")
@pytest.mark.parametrize("index_bytes", [None, 5 * (16 * CHUNKSIZE + 4)])
def test_open_files_and_indexes_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index_bytes: int | None
) -> None:
    most = reader.OPEN_SHARDS
    if index_bytes is not None:
        monkeypatch.setattr(reader, "INDEX_BYTES", index_bytes)
        most = 5
    path = record(tmp_path / "r")
    with imgstore_zarr.open(path) as store:
        for position in range(0, COUNT, 3):
            np.testing.assert_array_equal(store.frames[position], IMAGES[position])
            assert open_shards(path) <= most
        assert open_shards(path) == most
        rng = np.random.default_rng(0)
        batches = [rng.integers(0, COUNT, 20) for _ in range(20)]
        with ThreadPoolExecutor(8) as pool:
            for wanted, images in zip(
                batches, pool.map(store.frames.__getitem__, batches), strict=True
            ):
                np.testing.assert_array_equal(images, IMAGES[wanted])
        assert open_shards(path) <= most
    assert open_shards(path) == 0
