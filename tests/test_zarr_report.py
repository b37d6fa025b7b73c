"""What `report` says of damaged recordings of the Zarr layout, and what it reads for that."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from zarr.storage import MemoryStore

import imgstore_zarr
from imgstore_zarr import ImgStoreError
from imgstore_zarr.native import inspection
from imgstore_zarr.storage import Blob, Directory, ZarrStore
from tests.test_zarr_damage import CHUNKSIZE, FRAMES, IMAGES, KINDS, flip, make, shard
from tests.test_zarr_damage import read_index as entries_of
from tests.test_zarr_damage import write_index as with_entries

CHUNKS = -(-FRAMES // CHUNKSIZE)


@pytest.fixture(params=KINDS)
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make(tmp_path / "recording", str(request.param))


def problems(recording: object) -> list[tuple[str, int | None]]:
    with imgstore_zarr.open(recording) as store:
        found = store.report().problems
    for problem in found:
        assert "restore it from a backup" in problem.message
        assert f"chunk {problem.chunk} (image/c/{problem.chunk}/0" in problem.message
    return [(problem.kind, problem.chunk) for problem in found]


def without_its_start(path: Path) -> None:
    path.write_bytes(path.read_bytes()[20:])


def of_another_size(path: Path) -> None:
    entries = entries_of(path)
    with_entries(path, [(entries[0][0], entries[0][1] + 2**40), *entries[1:]])


def without_an_inner_chunk(path: Path) -> None:
    with_entries(path, [(2**64 - 1, 2**64 - 1), *entries_of(path)[1:]])


def with_an_offset_beyond_its_end(path: Path) -> None:
    entries = entries_of(path)
    with_entries(path, [(2**64 - 60, entries[0][1]), *entries[1:]])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a byte short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"\0" * 40),
    "empty": lambda path: path.write_bytes(b""),
    "a bit of the index": lambda path: flip(path, path.stat().st_size - 12),
    "a bit of its checksum": lambda path: flip(path, path.stat().st_size - 2),
    "without its start": without_its_start,
    "of another size": of_another_size,
    "without an inner chunk": without_an_inner_chunk,
    "an offset beyond its end": with_an_offset_beyond_its_end,
}


def test_a_whole_recording(recording: Path) -> None:
    assert problems(recording) == []


def test_a_shard_that_is_missing(recording: Path) -> None:
    shard(recording, 1).unlink()
    assert problems(recording) == [("chunk-missing", 1)]


def test_without_any_image(recording: Path) -> None:
    shutil.rmtree(recording / "image" / "c")
    assert problems(recording) == [("chunk-missing", chunk) for chunk in range(CHUNKS)]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("chunk", [1, CHUNKS - 1])
def test_a_shard_that_is_damaged(recording: Path, damage: str, chunk: int) -> None:
    DAMAGES[damage](shard(recording, chunk))
    assert problems(recording) == [("chunk-damaged", chunk)]


def test_a_shard_that_is_a_directory(recording: Path) -> None:
    shard(recording, 1).unlink()
    shard(recording, 1).mkdir()
    assert problems(recording) == [("chunk-damaged", 1)]


def test_a_shard_of_which_reading_fails_is_told(recording: Path) -> None:
    """Any bit of the index: where reading raises, the report has a problem, and else none."""
    path = shard(recording, 0)
    whole = path.read_bytes()
    start = sum(entries_of(path)[-1])
    for offset in range(start, len(whole), 3):
        flip(path, offset)
        with imgstore_zarr.open(recording) as store:
            with pytest.raises(ImgStoreError, match="chunk 0"):
                _ = store.frames[...]
            assert [problem.chunk for problem in store.report().problems] == [0]
        path.write_bytes(whole)


def test_a_flipped_bit_of_pixels_is_out_of_reach(recording: Path) -> None:
    flip(shard(recording, 1), 30)
    assert problems(recording) == []
    with imgstore_zarr.open(recording) as store, pytest.raises(imgstore_zarr.CorruptChunkError):
        _ = store.frames[...]


def test_beside_a_writer(tmp_path: Path) -> None:
    """What is not yet committed is no problem."""
    with imgstore_zarr.create(tmp_path / "r", "zstd/zarr", (9, 12), chunksize=4) as writer:
        for i, image in enumerate(IMAGES):
            writer.add_image(image, i, float(i))
            if i == 5:
                writer.flush()
            with imgstore_zarr.open(tmp_path / "r") as store:
                assert [p.kind for p in store.report().problems] == ["repair-due"]


@dataclass(frozen=True)
class Counting:
    """A directory that notes what is read of its shards."""

    inner: Directory
    reads: list[tuple[str, int]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def open(self, key: str) -> Blob:
        return CountingBlob(self.inner.open(key), key, self.reads)


@dataclass(frozen=True)
class CountingBlob:
    inner: Blob
    key: str
    reads: list[tuple[str, int]]

    @property
    def size(self) -> int:
        return self.inner.size

    def tail(self, nbytes: int) -> bytes:
        self.reads.append((self.key, nbytes))
        return self.inner.tail(nbytes)

    def read_into(self, offset: int, buffers: Sequence[NDArray[np.uint8]]) -> int:
        self.reads.append((self.key, sum(len(buffer) for buffer in buffers)))
        return self.inner.read_into(offset, buffers)


def test_one_small_read_for_each_shard_and_none_on_opening(tmp_path: Path) -> None:
    path = make(tmp_path / "recording", "zstd")
    counting = Counting(Directory(path))
    with imgstore_zarr.open(counting) as store:
        assert counting.reads == []
        assert store.report().ok
    expected = [(f"image/c/{chunk}/0/0", 16 * CHUNKSIZE + 4) for chunk in range(CHUNKS)]
    assert sorted(counting.reads) == expected


def test_in_a_store_of_zarr() -> None:
    store = MemoryStore()
    with imgstore_zarr.create(store, "zstd/zarr", (9, 12), chunksize=CHUNKSIZE) as writer:
        for i, image in enumerate(IMAGES):
            writer.add_image(image, i, float(i))
    assert problems(store) == []
    place = ZarrStore(store)
    place.write("image/c/0/0/0", place.read("image/c/0/0/0")[:50])
    place.delete("image/c/2/0/0")
    assert problems(store) == [("chunk-damaged", 0), ("chunk-missing", 2)]


def test_many_problems_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "MAX_PROBLEMS", 3)
    monkeypatch.setattr(inspection, "_BATCH", 4)
    path = tmp_path / "recording"
    with imgstore_zarr.create(path, "raw/zarr", (9, 12), chunksize=1) as writer:
        for i, image in enumerate(IMAGES):
            writer.add_image(image, i, float(i))
    assert imgstore_zarr.open(path).report().ok
    shutil.rmtree(path / "image" / "c")
    found = imgstore_zarr.open(path).report().problems
    assert [problem.chunk for problem in found] == [0, 1, 2, None]
    assert f"{FRAMES - 3} more chunks" in found[-1].message
