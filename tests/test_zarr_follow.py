"""A reader in another process that follows a writer at full speed never sees a torn state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import imgstore_zarr
from tests.campaign import rounds

SHAPE = (16, 24)
FRAMES = rounds(4000)

WRITER = """
import sys
from pathlib import Path
import imgstore_zarr
from tests.test_zarr_follow import FRAMES, SHAPE, image

path, format, group, flush_every = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:5])
with imgstore_zarr.create(
    path, format, SHAPE, chunksize=32, inner_chunks=(group, *SHAPE), metadata={"n": FRAMES}
) as writer:
    print("begun", flush=True)
    for i in range(FRAMES):
        writer.add_image(image(i), 3 * i - 5, i / 100)
        if i % flush_every == flush_every - 1:
            writer.flush()
"""

pytestmark = pytest.mark.timeout(3600)


def image(i: int) -> NDArray[np.uint8]:
    """Different for each i, and quickly made."""
    return (np.arange(384, dtype=np.uint32).reshape(SHAPE) * (i % 251 + 1) + i).astype(np.uint8)


@pytest.mark.parametrize(
    ("format", "group", "flush_every"),
    [("raw/zarr", 1, 7), ("zstd/zarr", 1, 50), ("raw/zarr", 4, 5)],
)
def test_following(tmp_path: Path, format: str, group: int, flush_every: int) -> None:
    path = tmp_path / "recording"
    command = [sys.executable, "-c", WRITER, str(path), format, str(group), str(flush_every)]
    root = Path(__file__).parents[1]
    states = torn = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        store = imgstore_zarr.open(path)
        while len(store) < FRAMES:
            before = len(store)
            running = process.poll() is None
            added = store.refresh()
            assert added >= 0
            states += added > 0
            if not added:
                assert running, "the writer ended before its last frame was seen"
                continue
            index, count = store.index, len(store)
            expected = np.arange(before, count)
            np.testing.assert_array_equal(index.frame_number[before:], 3 * expected - 5)
            np.testing.assert_array_equal(index.frame_time[before:], expected / 100)
            for i in {before, count - 1, count // 2, 0}:
                np.testing.assert_array_equal(store.frames[i], image(i))
            block = store.frames[max(0, count - 5) :]
            np.testing.assert_array_equal(
                block, [image(i) for i in range(max(0, count - 5), count)]
            )
            # Other readers see a consistent state, too.
            group_now = zarr.open_group(path, mode="r")
            numbers, images = group_now["frame_number"], group_now["image"]
            assert isinstance(numbers, zarr.Array)
            assert isinstance(images, zarr.Array)
            torn += numbers.shape[0] != images.shape[0]
            last = images.shape[0] - 1
            np.testing.assert_array_equal(images[last], image(last))
            assert numbers[last] == 3 * last - 5
        with pytest.raises(imgstore_zarr.RecordingExistsError):
            imgstore_zarr.create(path, format, SHAPE)
    assert process.returncode == 0
    assert torn == 0
    assert states > 20
    assert imgstore_zarr.verify(path).ok


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    command = [sys.executable, "-c", WRITER, str(path), "raw/zarr", "1", "7"]
    refused = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        for mode in ("x", "a") * 20:
            if process.poll() is not None:
                break
            try:
                imgstore_zarr.create(path, "raw/zarr", SHAPE, mode=mode, chunksize=32).close()
            except (imgstore_zarr.RecordingLockedError, imgstore_zarr.RecordingExistsError):
                refused += 1
    assert process.returncode == 0
    assert refused >= 2
    with imgstore_zarr.open(path) as store:
        assert len(store) == FRAMES
        for i in range(0, FRAMES, 97):
            np.testing.assert_array_equal(store.frames[i], image(i))
