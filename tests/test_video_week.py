"""A recording of a week has 1,512 chunks: what reading it holds open, and holds in memory."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from imgstore_compat.video.frames import OPEN_FILES, VideoFrames

import imgstore_zarr
from imgstore_zarr.video import VideoFile, open_decoders
from imgstore_zarr.video.decoder_pool import LANES
from imgstore_zarr.video.frame_cache import CACHE_BYTES
from tests.videos import barcode, read_barcode

CHUNKS, CHUNKSIZE, SHAPE = 1512, 8, (32, 256)
THREADS = 4

AT_REST = OPEN_FILES + LANES
WHILE_READING = AT_REST + THREADS * (1 + LANES)

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc here")


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("week") / "recording"
    with imgstore_zarr.create(path, "avc1/mp4", SHAPE, chunksize=CHUNKSIZE, gop=4) as writer:
        for number in range(CHUNKSIZE):
            writer.add_image(barcode(number, SHAPE), number, number / 25)
    for chunk in range(1, CHUNKS):
        os.link(path / "000000.mp4", path / f"{chunk:06d}.mp4")
        numbers = np.arange(chunk * CHUNKSIZE, (chunk + 1) * CHUNKSIZE)
        np.savez(path / f"{chunk:06d}.npz", frame_number=numbers, frame_time=numbers / 25)
    return path


def open_files(below: Path) -> int:
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += str(descriptor.readlink()).startswith(str(below))
    return count


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_one_reader(week: Path) -> None:
    store = imgstore_zarr.open(week)
    files, memory = [], []
    for chunk in range(CHUNKS):
        position = chunk * CHUNKSIZE + chunk % CHUNKSIZE
        image, (number, _) = store.get_image(frame_index=position)
        assert (number, read_barcode(image)) == (position, chunk % CHUNKSIZE)
        if chunk % 50 == 0:
            files.append(open_files(week))
            memory.append(resident())
    assert max(files) <= AT_REST
    living = [one for one in open_decoders.living if one.name.startswith(str(week))]
    assert len(living) <= AT_REST
    assert open_decoders.frame_cache().used <= CACHE_BYTES
    # After some chunks nothing is added any more.
    assert max(memory[6:]) - memory[6] < 16 * 2**20
    store.close()
    assert open_files(week) == 0


def test_several_readers(week: Path) -> None:
    store = imgstore_zarr.open(week)
    rng = random.Random(8)
    runs = [rng.randrange(CHUNKS * CHUNKSIZE - 12) for _ in range(80)]
    most = []

    def read(start: int) -> list[tuple[int, int]]:
        wrong = []
        for position in range(start, start + 12):
            shown = read_barcode(store.frames[position])
            if shown != position % CHUNKSIZE:
                wrong.append((position, shown))
        most.append(open_files(week))
        return wrong

    with ThreadPoolExecutor(THREADS) as pool:
        assert [wrong for wrong in pool.map(read, runs) if wrong] == []
    assert max(most) <= WHILE_READING
    store.frames[0]
    # What was being decoded ahead comes to its end.
    until = time.monotonic() + 20
    while open_files(week) > AT_REST and time.monotonic() < until:
        time.sleep(0.01)
    assert open_files(week) <= AT_REST
    batch = store.frames[rng.sample(range(CHUNKS * CHUNKSIZE), 40)]
    assert batch.shape == (40, *SHAPE)
    assert open_files(week) <= AT_REST
    store.close()
    assert open_files(week) == 0


@pytest.mark.parametrize("chunks", [None, CHUNKSIZE])
def test_a_minute_in_the_middle_touches_its_own_chunks(
    week: Path, monkeypatch: pytest.MonkeyPatch, chunks: int | None
) -> None:
    opened: set[int] = set()
    open_file = VideoFrames._open

    def counted(self: VideoFrames, chunk: int) -> VideoFile:
        opened.add(chunk)
        return open_file(self, chunk)

    array = imgstore_zarr.open(week).to_xarray(chunks=chunks, index="frame_time")
    middle = CHUNKS // 2
    start, stop = middle * CHUNKSIZE + 3, (middle + 5) * CHUNKSIZE + 1
    part = array.sel(frame_time=slice(start / 25, (stop - 1) / 25))
    assert part.sizes["frame"] == stop - start
    monkeypatch.setattr(VideoFrames, "_open", counted)
    numbers = [read_barcode(image) for image in part.values]
    assert numbers == [position % CHUNKSIZE for position in range(start, stop)]
    assert opened == {*range(middle, middle + 6)}


def test_the_graph_of_a_week_is_small(week: Path) -> None:
    """However small its blocks."""
    array = imgstore_zarr.open(week).to_xarray(chunks=CHUNKSIZE)
    assert array.data.npartitions == CHUNKS
    part = pickle.dumps(array.isel(frame=slice(0, CHUNKSIZE)).data)
    assert len(part) < 100_000
