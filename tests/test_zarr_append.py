"""Going on with a recording, and following one that grows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr.native import metadata

SHAPE = (6, 10, 3)
IMAGES = np.random.default_rng(4).integers(0, 2**16, (40, *SHAPE), np.uint16)
INNER = {"frames": None, "groups": (4, 6, 10, 3), "tiles": (2, 4, 3, 3)}


def create(path: Any, count: int, **options: Any) -> imgstore_zarr.ImgStoreWriter:
    """A writer that goes on with a recording, after it has taken frames up to a count."""
    options = {"chunksize": 8, **options}
    format = options.pop("format", "zstd/zarr")
    writer = imgstore_zarr.create(path, format, SHAPE, np.uint16, mode="a", **options)
    for i in range(len(writer), count):
        writer.add_image(IMAGES[i], 100 + 3 * i, i / 8)
        writer.add_extra_data(value=i, **({"note": "even"} if i % 2 == 0 else {}))
    return writer


def holds(path: Any, count: int, extra: bool = True) -> None:
    with imgstore_zarr.open(path) as store:
        assert store.report().ok
        assert store.index.frame_number.tolist() == [100 + 3 * i for i in range(count)]
        assert store.index.frame_time.tolist() == [i / 8 for i in range(count)]
        np.testing.assert_array_equal(store.frames[...], IMAGES[:count])
        table = store.get_extra_data() if extra else None
        if table is not None:
            assert table["value"].tolist() == [*range(count)]
            assert table["frame_index"].tolist() == [*range(count)]
            assert table["note"][::2].tolist() == ["even"] * len(table["note"][::2])
            assert table["note"][1::2].isna().all()
    if isinstance(path, Path):
        array = zarr.open_array(path / "image", mode="r")
        np.testing.assert_array_equal(array[...], IMAGES[:count])


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("format", ["raw/zarr", "lz4/zarr"])
def test_going_on(tmp_path: Path, format: str, inner: str) -> None:
    path = tmp_path / "recording"
    for count in (1, 3, 8, 16, 18, 23, 23, 40):
        with create(path, count, format=format, inner_chunks=INNER[inner]) as writer:
            assert len(writer) == count
            assert (writer.frame_min, writer.frame_max) == (100, 100 + 3 * (count - 1))
            assert (writer.frame_time_min, writer.frame_time_max) == (0.0, (count - 1) / 8)
            assert writer.has_extra_data
        holds(path, count)


@pytest.mark.parametrize("chunk", [4, 5, 1000])
def test_coordinates_of_several_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    from imgstore_zarr.native import columns, layout

    for module in (columns, layout, metadata):
        monkeypatch.setattr(module, "COLUMN_CHUNK", chunk)
    path = tmp_path / "recording"
    follower = None
    for count in (3, 4, 5, 17, 40):
        create(path, count).close()
        holds(path, count)
        follower = follower or imgstore_zarr.open(path)
        follower.refresh()
        assert follower.index.frame_number.tolist() == [100 + 3 * i for i in range(count)]


def test_in_another_store_than_a_directory() -> None:
    store = zarr.storage.MemoryStore()
    for count in (3, 9, 20):
        create(store, count).close()
        holds(store, count)


@pytest.mark.parametrize("inner", INNER)
def test_flushes_while_going_on(tmp_path: Path, inner: str) -> None:
    path = tmp_path / "recording"
    create(path, 5, inner_chunks=INNER[inner]).close()
    reader = imgstore_zarr.open(path)
    writer = create(path, 5, inner_chunks=INNER[inner])
    writer.flush()
    assert reader.refresh() == 0
    for count in range(6, 20):
        i = count - 1
        writer.add_image(IMAGES[i], 100 + 3 * i, i / 8)
        writer.flush()
        assert reader.refresh() == 1
        np.testing.assert_array_equal(reader.frames[...], IMAGES[:count])
    writer.close()


def test_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    create(path, 10).close()
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.test_zarr_append import create\n"
        "writer = create(Path(sys.argv[1]), 21)\n"
        "writer.flush()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", script, str(path)], check=False, cwd=root)
    with imgstore_zarr.open(path) as store:
        assert len(store) == 21
        assert [problem.kind for problem in store.report().problems] == ["repair-due"]
        table = store.get_extra_data()
        assert table is not None
        assert table["value"].tolist() == [*range(21)]
    create(path, 30).close()
    holds(path, 30)


def test_after_other_numbers_were_given(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    with imgstore_zarr.create(path, "raw/zarr", (4, 5), chunksize=4) as writer:
        for number in (7, 8, 0, 1, 2):
            writer.add_image(np.full((4, 5), number, np.uint8), number, number / 8)
    with imgstore_zarr.open(path) as store:
        store.reindex()
    with imgstore_zarr.create(path, "raw/zarr", (4, 5), chunksize=4, mode="a") as writer:
        assert writer.frame_number == 2
        for number in (3, 4):
            writer.add_image(np.full((4, 5), number, np.uint8), number, number / 8)
    with imgstore_zarr.open(path) as store:
        assert store.index.frame_number.tolist() == [-2, -1, 0, 1, 2, 3, 4]
    before: Any = zarr.open_group(path, mode="r")["frame_number_before_reindex"]
    assert before[...].tolist() == [7, 8, 0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "raw/zarr"}, "format zstd/zarr"),
        ({"chunksize": 16}, "chunksize 8"),
        ({"inner_chunks": (2, 6, 10, 3)}, "inner_chunks"),
        ({"metadata": {"a": 2}}, "metadata"),
        ({"format": "avc1/mp4"}, "layout zarr"),
    ],
)
def test_what_cannot_follow(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "recording"
    create(path, 3, metadata={"a": 1}).close()
    shape: tuple[int, ...] = SHAPE
    dtype: Any = np.uint8 if change.get("format") == "avc1/mp4" else np.uint16
    options = {"format": "zstd/zarr", **change}
    with pytest.raises(imgstore_zarr.RecordingExistsError, match=said):
        imgstore_zarr.create(path, imgshape=shape, imgdtype=dtype, mode="a", **options)
    for other in ((6, 10), (6, 12, 3)):
        with pytest.raises(imgstore_zarr.RecordingExistsError, match="imgshape"):
            imgstore_zarr.create(path, "zstd/zarr", other, np.uint16, mode="a")
    with pytest.raises(imgstore_zarr.RecordingExistsError, match="imgdtype uint16"):
        imgstore_zarr.create(path, "zstd/zarr", SHAPE, np.int16, mode="a")
    with pytest.raises(imgstore_zarr.UnsupportedFormatError, match="mode 'w'"):
        imgstore_zarr.create(path, "zstd/zarr", SHAPE, np.uint16, mode="w")  # type: ignore[arg-type]
    holds(path, 3)


def test_video_cannot_be_appended_to(tmp_path: Path) -> None:
    for _ in range(2):
        try:
            writer = imgstore_zarr.create(tmp_path / "r", "npy/dir", (4, 6), mode="a")
        except imgstore_zarr.UnsupportedFormatError as error:
            message = str(error)
        else:
            writer.add_image(np.zeros((4, 6), np.uint8), 0, 0.0)
            writer.close()
    assert "cannot be appended to recordings of the layout directory" in message


def test_emptying_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    create(path, 11).close()
    with create(path, 13) as writer:
        writer.empty()
        assert (len(writer), writer.has_extra_data) == (0, False)
        for i in range(3):
            writer.add_image(IMAGES[i], 100 + 3 * i, i / 8)
    holds(path, 3)
    assert imgstore_zarr.verify(path).ok
    with imgstore_zarr.open(path) as store:
        assert store.get_extra_data() is None


def test_beside_another_writer(tmp_path: Path) -> None:
    with create(tmp_path / "r", 3):
        for _ in range(2):
            with pytest.raises(imgstore_zarr.RecordingLockedError, match="being written to"):
                create(tmp_path / "r", 5)
    holds(tmp_path / "r", 3)


@pytest.mark.parametrize("group", [1, 4])
def test_a_last_chunk_that_is_damaged(tmp_path: Path, group: int) -> None:
    path = tmp_path / "recording"
    create(path, 11, inner_chunks=(group, *SHAPE)).close()
    shard = path / "image" / "c" / "1" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(data)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(imgstore_zarr.CorruptChunkError, match="position 8 in chunk 1"):
        create(path, 12, inner_chunks=(group, *SHAPE))
    after = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert after.pop(path / ".lock", b"") == b""
    assert after == before


class Counting:
    """Counts what is read of a recording."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        from imgstore_zarr.storage import Directory

        self.keys: list[str] = []
        read = Directory.read

        def counted(location: Directory, key: str) -> bytes:
            self.keys.append(key)
            return read(location, key)

        patch.setattr(Directory, "read", counted)


def test_what_a_refresh_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from imgstore_zarr.native import columns, layout

    for module in (columns, layout, metadata):
        monkeypatch.setattr(module, "COLUMN_CHUNK", 8)
    path = tmp_path / "recording"
    create(path, 30).close()
    store = imgstore_zarr.open(path)
    frames, index = store.frames, store.index
    create(path, 34).close()
    counting = Counting(monkeypatch)
    assert store.refresh() == 4
    # Only the chunks of coordinates from the last one on.
    assert sorted(counting.keys) == [
        *(f"{name}/c/{n}" for name in ("frame_number", "frame_time") for n in (3, 4)),
        "zarr.json",
    ]
    assert (len(frames), len(index), len(store)) == (30, 30, 34)
    np.testing.assert_array_equal(frames[...], IMAGES[:30])
    np.testing.assert_array_equal(store.frames[...], IMAGES[:34])
    assert store.refresh() == 0


def test_a_recording_that_was_emptied(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    with create(path, 11) as writer:
        writer.flush()
        store = imgstore_zarr.open(path)
        writer.empty()
        assert store.refresh() == -11
        for i in range(12):
            writer.add_image(IMAGES[30 - i], i, 0.0)
        writer.flush()
        assert store.refresh() == 12
        np.testing.assert_array_equal(store.frames[...], IMAGES[30:18:-1])
    other = imgstore_zarr.open(path, index=store.index)
    with pytest.raises(imgstore_zarr.InvalidMetadataError, match="opened with an index"):
        other.refresh()


def test_following_other_layouts(tmp_path: Path) -> None:
    images: NDArray[np.uint8] = np.random.default_rng(1).integers(0, 255, (9, 8, 10), np.uint8)
    with imgstore_zarr.create(tmp_path / "r", "npy/dir", (8, 10), chunksize=4) as writer:
        for i in range(5):
            writer.add_image(images[i], i, float(i))
        writer.flush()
        store = imgstore_zarr.open(tmp_path / "r")
        before = len(store)
        for i in range(5, 9):
            writer.add_image(images[i], i, float(i))
    assert store.refresh() == 9 - before
    np.testing.assert_array_equal(store.frames[...], images)
