"""Whatever is done to a recording, it holds what a plain list of frames would hold."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr.native import pipeline
from tests.campaign import rounds

pytestmark = pytest.mark.timeout(3600)

SHAPE = (5, 6)
INNER = [None, (1, 2, 4), (2, 5, 6), (4, 3, 3)]
NUMBERS = st.integers(-3, 30) | st.integers(-(2**63), 2**63 - 1)
TIMES = st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 10)


@dataclasses.dataclass
class Frame:
    image: NDArray[np.uint16]
    number: int
    time: float


class Recording(RuleBasedStateMachine):
    """A writer, readers that come and go, and a list of frames as the model."""

    at_once = True
    """Whether frames are stored before `add_image` returns, as small ones are."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.random = np.random.default_rng(0)
        self.frames: list[Frame] = []
        self.records: list[dict[str, Any]] = []
        self.visible = 0
        self.readers: list[tuple[imgstore_zarr.ImgStore, int]] = []

    @initialize(
        format=st.sampled_from(["raw/zarr", "lz4/zarr", "zstd/zarr"]),
        chunksize=st.sampled_from([4, 8]),
        inner=st.sampled_from(INNER),
    )
    def begin(self, format: str, chunksize: int, inner: tuple[int, ...] | None) -> None:
        self.path = self.directory / "recording"
        self.chunksize = chunksize
        self.create = partial(
            imgstore_zarr.create,
            self.path,
            format,
            SHAPE,
            np.uint16,
            chunksize=chunksize,
            inner_chunks=inner,
        )
        self.open = True
        self.writer = self.create()

    def teardown(self) -> None:
        for store, _ in self.readers:
            store.close()
        if hasattr(self, "writer"):
            self.writer.close()
        shutil.rmtree(self.directory)

    @precondition(lambda self: self.open)
    @rule(number=NUMBERS, time=TIMES, blank=st.booleans())
    def append(self, number: int, time: float, blank: bool) -> None:
        image = np.zeros(SHAPE, np.uint16)
        if not blank:
            image = self.random.integers(0, 2**16, SHAPE, np.uint16)
        self.writer.add_image(image, number, time)
        self.frames.append(Frame(image, number, time))
        if self.at_once and len(self.frames) % self.chunksize == 0:
            self.visible = len(self.frames)

    @precondition(lambda self: self.open)
    @rule(count=st.integers(1, 11))
    def append_many(self, count: int) -> None:
        for _ in range(count):
            self.append(len(self.frames), float(len(self.frames)), False)

    @precondition(lambda self: self.open and self.frames)
    @rule(
        value=st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False)
        | st.text(max_size=4)
        | st.booleans()
    )
    def add_extra_data(self, value: Any) -> None:
        self.writer.add_extra_data(value=value)
        self.records.append({"value": value, "frame_index": len(self.frames) - 1})

    @precondition(lambda self: self.open)
    @rule()
    def flush(self) -> None:
        self.writer.flush()
        self.visible = len(self.frames)

    @precondition(lambda self: self.open)
    @rule()
    def empty(self) -> None:
        self.close_readers()
        self.writer.empty()
        self.frames, self.records, self.visible = [], [], 0

    @precondition(lambda self: self.open and self.frames)
    @rule()
    def close(self) -> None:
        self.writer.close()
        self.visible = len(self.frames)
        self.open = False

    @precondition(lambda self: not self.open)
    @rule()
    def go_on(self) -> None:
        self.writer = self.create(mode="a")
        assert len(self.writer) == len(self.frames)
        self.open = True

    @precondition(lambda self: not self.open)
    @rule()
    def verify(self) -> None:
        report = imgstore_zarr.verify(self.path)
        assert (report.ok, report.frame_count) == (True, len(self.frames)), report.problems

    def _seen(self, count: int, least: int) -> int:
        """A count that a reader may see: threads commit full chunks when they come to it."""
        assert least <= count <= len(self.frames)
        assert count in (self.visible, len(self.frames)) or count % self.chunksize == 0
        return count

    @precondition(lambda self: len(self.readers) < 3)
    @rule()
    def open_reader(self) -> None:
        store = imgstore_zarr.open(self.path)
        self.readers.append((store, self._seen(len(store), self.visible)))

    @precondition(lambda self: self.readers)
    @rule()
    def refresh(self) -> None:
        store, count = self.readers.pop(0)
        assert store.refresh() == len(store) - count
        self.readers.append((store, self._seen(len(store), max(count, self.visible))))

    @rule()
    def close_readers(self) -> None:
        while self.readers:
            self.readers.pop()[0].close()

    @rule(
        near=st.integers(0, 10_000),
        far=st.integers(0, 10_000),
        step=st.sampled_from([1, 2, -1]),
        anywhere=st.lists(st.integers(0, 10_000), max_size=5),
    )
    def readers_read(self, near: int, far: int, step: int, anywhere: list[int]) -> None:
        """Readers go on seeing what was committed when they opened, by every way of access.

        What is drawn does not depend on how many frames they see: that depends on threads.
        """
        for store, count in self.readers:
            assert len(store) == count
            frames = self.frames[:count]
            if not frames:
                continue
            position = near % count
            expected = frames[position]
            image, metadata = store.get_image(frame_index=position)
            np.testing.assert_array_equal(image, expected.image)
            assert metadata == (expected.number, expected.time)

            first = next(frame for frame in frames if frame.number == expected.number)
            image, metadata = store.get_image(expected.number)
            np.testing.assert_array_equal(image, first.image)
            assert metadata == (first.number, first.time)

            first = next(frame for frame in frames if frame.time == expected.time)
            image, metadata = store.get_nearest_image(expected.time)
            np.testing.assert_array_equal(image, first.image)
            assert metadata == (first.number, first.time)

            stack = np.stack([frame.image for frame in frames])
            low, high = sorted((position, far % (count + 1)))
            key = np.s_[low:high:step, 1:4, ::2]
            np.testing.assert_array_equal(store.frames[key], stack[key])
            wanted = [at % (2 * count) - count for at in anywhere]
            np.testing.assert_array_equal(store.frames[wanted], stack[wanted])

    @invariant()
    def a_new_reader_sees_what_is_committed(self) -> None:
        if not hasattr(self, "writer"):
            return
        with imgstore_zarr.open(self.path) as store:
            count = self._seen(len(store), self.visible)
            frames = self.frames[:count]
            assert store.index.frame_number.tolist() == [frame.number for frame in frames]
            assert store.index.frame_time.tolist() == [frame.time for frame in frames]
            images = np.array([frame.image for frame in frames], np.uint16)
            np.testing.assert_array_equal(store.frames[...], images.reshape(-1, *SHAPE))
            records = [r for r in self.records if r["frame_index"] < count]
            table = store.get_extra_data()
            if table is None:
                assert not records
            else:
                assert table["frame_index"].tolist() == [r["frame_index"] for r in records]
                assert table["value"].tolist() == [r["value"] for r in records]


class RecordingByThreads(Recording):
    """The same, where threads store the frames."""

    at_once = False

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(pipeline, "_SMALL_RAW", 0)
        self.patch.setattr(pipeline, "_SMALL_COMPRESSED", 0)

    def teardown(self) -> None:
        super().teardown()
        self.patch.undo()


TestRecording = Recording.TestCase
TestRecordingByThreads = RecordingByThreads.TestCase
TestRecording.settings = TestRecordingByThreads.settings = settings(
    max_examples=rounds(40),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
