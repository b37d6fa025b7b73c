"""Storage that fails, tears or delays its n-th operation, for every n: nothing is wrong or lost."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import imgstore_zarr
from imgstore_zarr.native import pipeline
from imgstore_zarr.storage import Directory

SHAPE = (6, 8)
COUNT = 23
IMAGES = np.random.default_rng(23).integers(0, 256, (COUNT, *SHAPE), np.uint8)

OPERATIONS = ["pwritev", "ftruncate", "open", "take", "write"]

Way = Literal["fail", "fail for good", "tear", "write less", "delay"]


class Operation:
    """Counts calls of an operation, and does not let one of them, or all from that one on, be."""

    def __init__(self, fail_at: int | None, way: Way) -> None:
        self.count = 0
        self._fail_at = fail_at
        self._way = way

    def wrap(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            for_good = self._way == "fail for good"
            at = self._fail_at
            if at is None or not (self.count == at or (for_good and self.count > at)):
                return work(*arguments, **options)
            if self._way == "delay":
                time.sleep(0.02)
                return work(*arguments, **options)
            if self._way in ("tear", "write less"):
                descriptor, buffers, offset = arguments
                part = b"".join(bytes(buffer) for buffer in buffers)
                written = os.pwrite(descriptor, part[: len(part) // 2], offset)
                if self._way == "write less":
                    return written
            raise OSError(28, "No space left on device")

        return failing


@contextmanager
def faulty(operation: str, at: int | None, way: Way = "fail") -> Iterator[Operation]:
    wrapped = Operation(at, way)
    with pytest.MonkeyPatch.context() as patch:
        owner: Any = {"take": Directory, "write": Directory}.get(operation, os)
        patch.setattr(owner, operation, wrapped.wrap(getattr(owner, operation)))
        yield wrapped


@dataclass
class Recorded:
    """What came of recording on faulty storage.

    Attributes
    ----------
    taken, flushed
        Frames that were taken, and those of them that a flush acknowledged.
    first_lost
        The first frame that an error named, where no later call stored it.
    raised
        Whether close raised.
    errors
        Everything that was raised.
    """

    taken: list[int] = field(default_factory=list)
    flushed: list[int] = field(default_factory=list)
    first_lost: int | None = None
    raised: bool = False
    errors: list[OSError] = field(default_factory=list)

    def note(self, error: OSError) -> None:
        self.errors.append(error)
        if found := re.search(r"frame (\d+) \(position \1, chunk \d+\)", str(error)):
            self.first_lost = int(found[1])


def record(path: Path, inner: tuple[int, ...] | None) -> Recorded:
    """Record, trying an image that was refused twice more, and close."""
    said = Recorded()
    writer = imgstore_zarr.create(path, "zstd/zarr", SHAPE, chunksize=4, inner_chunks=inner)
    for i, image in enumerate(IMAGES):
        for _ in range(3):
            try:
                writer.add_image(image, i, i / 25)
            except OSError as error:
                said.note(error)
                assert len(writer) == len(said.taken)
            else:
                said.first_lost = None
                said.taken.append(i)
                break
        try:
            writer.add_extra_data(value=i)
        except OSError as error:
            said.note(error)
        if i % 6 == 5:
            try:
                writer.flush()
            except OSError as error:
                said.note(error)
            else:
                said.first_lost, said.flushed = None, said.taken.copy()
    try:
        writer.close()
    except OSError as error:
        said.note(error)
        said.raised = True
    return said


def numbers(path: Path) -> list[int]:
    """The frame numbers of a recording whose pixels are right."""
    with imgstore_zarr.open(path) as store:
        found: list[int] = store.index.frame_number.tolist()
        np.testing.assert_array_equal(store.frames[...], IMAGES[found])
        assert store.index.frame_time.tolist() == [i / 25 for i in found]
        return found


INNER = {"frames": None, "groups": (2, 4, 8)}


@pytest.fixture(params=["by the caller", "by threads"])
def stored(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small frames are stored by the caller, unless the limit is lower."""
    if request.param == "by threads":
        monkeypatch.setattr(pipeline, "_SMALL_COMPRESSED", 0)
    return str(request.param)


def cases() -> list[tuple[str, Way]]:
    ways: list[Way] = ["fail", "fail for good"]
    listed: list[tuple[str, Way]] = [(operation, way) for operation in OPERATIONS for way in ways]
    return [*listed, ("pwritev", "tear"), ("pwritev", "write less"), ("take", "delay")]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize(("operation", "way"), cases())
def test_a_writer(tmp_path: Path, operation: str, way: Way, inner: str, stored: str) -> None:
    with faulty(operation, None) as counted:
        record(tmp_path / "whole", INNER[inner])
    assert counted.count >= 5
    # Threads come in another order each time, so that one may miss the last operation.
    for n in range(1, counted.count + 1, 3 if way == "fail for good" else 1):
        path = tmp_path / str(n)
        with faulty(operation, n, way):
            try:
                said = record(path, INNER[inner])
            except imgstore_zarr.RecordingAccessError:
                # It could not be begun: then there is nothing, unless nothing can be removed.
                left = path.exists() and any(path.iterdir())
                assert not left or (operation, way) == ("open", "fail for good")
                continue
        assert all(isinstance(error, imgstore_zarr.ImgStoreError) for error in said.errors)
        if way in ("write less", "delay"):
            assert (said.taken, said.raised) == ([*range(COUNT)], False)
            assert said.first_lost is None
        if way == "fail":
            # The frame that could not be stored is kept, and stored by a later call.
            assert said.taken == [*range(COUNT)]
        assert numbers(path)[: len(said.flushed)] == said.flushed
        if (path / ".inflight").exists():
            with contextlib.suppress(imgstore_zarr.RecordingLockedError):
                imgstore_zarr.repair(path)
        found = numbers(path)
        assert found == said.taken[: len(found)]
        kept = len(said.taken) if said.first_lost is None else said.first_lost
        # Of a group that is not full, what no flush has stored is in memory only.
        at_least = kept if INNER[inner] is None else kept - 1
        assert len(found) >= at_least
        assert not (path / ".inflight").exists()


@pytest.mark.parametrize("operation", ["preadv", "pread", "open"])
@pytest.mark.parametrize("format", ["raw/zarr", "zstd/zarr"])
def test_a_reader(tmp_path: Path, operation: str, format: str) -> None:
    path = tmp_path / "recording"
    with imgstore_zarr.create(path, format, SHAPE, chunksize=4) as writer:
        for i, image in enumerate(IMAGES):
            writer.add_image(image, i, i / 25)

    messages = []

    def read() -> int:
        right = 0
        with imgstore_zarr.open(path) as store:
            for key in (0, 5, slice(3, 9), [22, 1, 7], slice(None)):
                try:
                    found = store.frames[key]
                except imgstore_zarr.CorruptChunkError as error:
                    messages.append(str(error))
                    continue
                np.testing.assert_array_equal(found, IMAGES[key])
                right += 1
        return right

    with faulty(operation, None) as counted:
        assert read() == 5
    for n in range(1, counted.count + 1):
        with faulty(operation, n):
            try:
                assert read() >= 4
            except imgstore_zarr.ImgStoreError:
                # Metadata or coordinates could not be read: then nothing is opened.
                assert operation == "open"
    assert messages
    assert all(re.search(r"position \d+ in chunk \d+ \(image/c/", text) for text in messages)


def test_a_reader_that_gets_less(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    with imgstore_zarr.create(path, "raw/zarr", SHAPE, chunksize=4) as writer:
        for i, image in enumerate(IMAGES):
            writer.add_image(image, i, i / 25)
    preadv = os.preadv

    def less(descriptor: int, buffers: list[Any], offset: int) -> int:
        first: Any = memoryview(buffers[0])
        return preadv(descriptor, [first[: max(1, len(first) // 3)]], offset)

    with imgstore_zarr.open(path) as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", less)
        np.testing.assert_array_equal(store.frames[...], IMAGES)
