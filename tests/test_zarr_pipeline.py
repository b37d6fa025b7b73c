"""The threads behind a writer: order, back-pressure, errors, and their end."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import imgstore_zarr
from imgstore_zarr.native import pipeline
from imgstore_zarr.native.codecs import InnerCodec
from imgstore_zarr.native.committer import Committer
from imgstore_zarr.native.pipeline import Group, Pipeline
from imgstore_zarr.native.shards import ShardGeometry

SHAPE = (512, 1024)
GEOMETRY = ShardGeometry(SHAPE, np.dtype("u1"), 8, (1, *SHAPE), InnerCodec(None, 1))


class Lane:
    """A pipeline whose results are kept, and which can be held up."""

    def __init__(self) -> None:
        self.stored: list[int] = []
        self.open = threading.Event()
        self.open.set()
        self.fails: list[BaseException] = []
        self.storing = 0
        self.pipeline = Pipeline(GEOMETRY, self.store)

    def store(self, group: Group) -> None:
        self.storing += 1
        assert self.storing == 1, "two threads store at once"
        self.open.wait(30)
        self.storing -= 1
        if self.fails:
            raise self.fails.pop()
        ((number, _),) = group.metadata
        np.testing.assert_array_equal(group.filled, number % 256)
        self.stored.append(number)

    def put(self, number: int) -> None:
        group = self.pipeline.new_group()
        group.frames[:] = number % 256
        group.metadata.append((number, 0.0))
        self.pipeline.put(group)


def test_groups_are_stored_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    encode, draw = ShardGeometry.encode_group, random.Random(1)

    def slow(self: ShardGeometry, frames: Any) -> Any:
        time.sleep(draw.random() / 200)
        return encode(self, frames)

    monkeypatch.setattr(ShardGeometry, "encode_group", slow)
    monkeypatch.setattr(pipeline, "CORES", 4)
    lane = Lane()
    for number in range(300):
        lane.put(number)
    lane.pipeline.drain()
    assert lane.stored == [*range(300)]
    lane.pipeline.close()


def test_no_more_groups_wait_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BUFFER_BYTES", 5 * 512 * 1024)
    lane = Lane()
    lane.open.clear()
    giver = threading.Thread(target=lambda: [*map(lane.put, range(20))])
    giver.start()
    for _ in range(20):
        time.sleep(0.01)
        assert len(lane.pipeline.waiting) <= 5
    assert len(lane.pipeline.waiting) == 5
    lane.open.set()
    giver.join(30)
    lane.pipeline.drain()
    assert lane.stored == [*range(20)]
    # What was used is used again.
    assert len(lane.pipeline._buffers) <= 6
    lane.pipeline.close()


def test_what_cannot_be_stored_stays_the_first() -> None:
    lane = Lane()
    lane.fails = [OSError(28, "full"), OSError(28, "full")]
    for number in range(4):
        lane.put(number)
    lane.pipeline.drain()
    assert [group.metadata[0][0] for group in lane.pipeline.waiting] == [0, 1, 2, 3]
    lane.pipeline.retry()
    assert str(lane.pipeline.error) == "[Errno 28] full"
    lane.pipeline.retry()
    assert (lane.pipeline.error, lane.stored) == (None, [0, 1, 2, 3])
    lane.pipeline.close()


def test_what_is_cleared_is_not_stored() -> None:
    lane = Lane()
    lane.open.clear()
    for number in range(4):
        lane.put(number)
    clearing = threading.Thread(target=lane.pipeline.clear)
    clearing.start()
    time.sleep(0.05)
    lane.open.set()
    clearing.join(30)
    # One may just have been stored, for which clear waits.
    assert lane.stored in ([], [0])
    lane.put(9)
    lane.pipeline.drain()
    assert lane.stored[-1] == 9
    lane.pipeline.close()


@pytest.mark.parametrize("shape", [(16, 16), SHAPE])
def test_an_error_of_the_compressor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    encode, broken = InnerCodec.encode, [True]

    def failing(self: InnerCodec, pixels: Any) -> Any:
        if broken and int(pixels.flat[0]) == 2:
            raise MemoryError("no room for a compressed frame")
        return encode(self, pixels)

    monkeypatch.setattr(InnerCodec, "encode", failing)
    writer = imgstore_zarr.create(tmp_path / "r", "zstd/zarr", shape, chunksize=4)
    images = [np.full(shape, i, np.uint8) for i in range(6)]
    for i in range(3):
        writer.add_image(images[i], 10 + i, i / 8)
    said = r"frame 12 \(position 2, chunk 0\) could not be written and is kept in memory"
    with pytest.raises(imgstore_zarr.ImgStoreError, match=said):
        writer.flush()
    assert len(writer) == 3
    broken.clear()
    for i in range(3, 6):
        writer.add_image(images[i], 10 + i, i / 8)
    writer.close()
    with imgstore_zarr.open(tmp_path / "r") as store:
        np.testing.assert_array_equal(store.frames[...], images)
        assert store.index.frame_number.tolist() == [10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("shape", [(16, 16), SHAPE])
def test_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    """Ctrl-C while a frame is being stored: what was taken is there when the writer is closed."""
    store, turns = Committer.append, iter(range(100))

    def interrupted(self: Committer, group: Group) -> None:
        if next(turns) == 3:
            raise KeyboardInterrupt
        store(self, group)

    monkeypatch.setattr(Committer, "append", interrupted)
    images = [np.full(shape, i, np.uint8) for i in range(6)]
    taken = 0
    with (
        contextlib.suppress(KeyboardInterrupt),
        imgstore_zarr.create(tmp_path / "r", "zstd/zarr", shape, chunksize=4) as writer,
    ):
        for i in range(6):
            writer.add_image(images[i], i, i / 8)
            taken = i + 1
    with imgstore_zarr.open(tmp_path / "r") as store_:
        assert store_.report().ok
        assert len(store_) >= taken
        np.testing.assert_array_equal(store_.frames[...], images[: len(store_)])


INTERRUPTED_WRITER = """
import signal, sys, time
import numpy as np
import imgstore_zarr

writing = False

def ctrl_c(*_):
    global writing
    if writing:  # what the lines below count is not interrupted
        writing = False
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, ctrl_c)
path, shape, group = sys.argv[1], tuple(map(int, sys.argv[2:4])), int(sys.argv[4])
writer = imgstore_zarr.create(
    path, "raw/zarr", shape, np.uint16, chunksize=8, inner_chunks=(group, *shape)
)
interrupted, offered, until = 0, 0, time.monotonic() + 3
print("ready", flush=True)
while interrupted <= 20 or time.monotonic() < until:
    offered += 1
    try:
        writing = True
        writer.add_image(np.full(shape, offered % 60000, np.uint16), offered, offered / 8)
        writer.add_extra_data(value=offered, text="x" * (offered % 30))
        writing = False
    except KeyboardInterrupt:
        interrupted += 1
signal.signal(signal.SIGINT, signal.SIG_IGN)
writer.close()
print(offered, interrupted, flush=True)
"""


@pytest.mark.parametrize(("shape", "group"), [((16, 16), 1), ((16, 16), 4), (SHAPE, 1)])
def test_ctrl_c_at_any_moment(tmp_path: Path, shape: tuple[int, int], group: int) -> None:
    """Whoever goes on after Ctrl-C finds each frame once, and no other."""
    path, draw = tmp_path / "r", random.Random(3)
    arguments = [str(path), *map(str, shape), str(group)]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_WRITER, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        until = time.monotonic() + 60
        while child.poll() is None and time.monotonic() < until:
            child.send_signal(signal.SIGINT)
            time.sleep(draw.uniform(0.0005, 0.004))
        if child.poll() is None:
            child.kill()
        offered, interrupted = map(int, child.stdout.readline().split())
    assert child.returncode == 0
    assert interrupted > 20
    assert imgstore_zarr.verify(path).ok
    with imgstore_zarr.open(path) as store:
        numbers = store.index.frame_number
        # What was interrupted may have been taken or not; nothing is there twice.
        assert (np.diff(numbers) > 0).all()
        assert offered - interrupted <= len(numbers) <= offered
        table = store.get_extra_data()
        assert table is not None
        # Each record belongs to the frame after which it was given.
        assert (table["frame_number"] == numbers[table["frame_index"]]).all()
        for position in range(0, len(store), 7):
            assert (store.frames[position] == numbers[position] % 60000).all()


def test_the_callers_array_may_change_at_once(tmp_path: Path) -> None:
    buffer = np.empty(SHAPE, np.uint8)
    with imgstore_zarr.create(tmp_path / "r", "raw/zarr", SHAPE) as writer:
        for i in range(30):
            buffer[:] = i
            writer.add_image(buffer, i, i / 25)
            buffer[:] = 255
    with imgstore_zarr.open(tmp_path / "r") as store:
        assert store.frames[:, 0, 0].tolist() == [*range(30)]


def test_threads_end_with_the_writer(tmp_path: Path) -> None:
    before = threading.active_count()
    for turn in range(5):
        with imgstore_zarr.create(tmp_path / str(turn), "zstd/zarr", SHAPE) as writer:
            for i in range(9):
                writer.add_image(np.full(SHAPE, i, np.uint8), i, i / 25)
    assert threading.active_count() == before
