"""LayoutTests: what must be true of every recording."""

# ruff: noqa: D102 - the name of a test says what is tested

from __future__ import annotations

import abc
import gc
import itertools
import math
import multiprocessing
import pickle
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import imgstore_zarr
from imgstore_zarr.storage import METADATA_FILES
from imgstore_zarr.testing.example import INDICES, Example


class LayoutTests(abc.ABC):
    """What must be true of every recording of a layout, however it was made.

    Attributes
    ----------
    exact
        Whether pixels must come back bit for bit.
    tolerance
        Where they need not: how far an image may be off, as mean absolute difference.
    survives_fork
        Whether a process that was forked can read on. Clients of object storage cannot, and must
        say so.
    """

    exact: bool = True
    tolerance: float = 3.0
    survives_fork: bool = True

    @abc.abstractmethod
    def recording(self, directory: Path) -> Example:
        """Make a recording, in the directory or elsewhere."""

    def spellings(self, example: Example) -> Iterator[object]:
        """Iterate over the ways to say where the recording lies; URLs are opened with its options."""
        location = example.place
        yield from (example.location, location)
        if location.path is not None:
            yield from (location.path, str(location.path), bytes(location.path))
            yield from (f"{location.path}/", location.path.as_uri())
            files = (location.path / name for name in METADATA_FILES)
            yield from (file for file in files if file.exists())

    def contents(self, example: Example) -> object:
        """Return something that differs when anything has been written to the recording."""
        path = example.place.path
        if path is None:
            pytest.skip("the recording is in no directory; override contents()")
        states = ((file, file.stat()) for file in (path, *path.rglob("*")))
        return {file: (state.st_mtime_ns, state.st_size) for file, state in states}

    def check(self, actual: NDArray[Any], expected: NDArray[Any]) -> None:
        """Assert that pixels are as they should be."""
        if self.exact:
            np.testing.assert_array_equal(actual, expected, strict=True)
            assert actual.tobytes() == expected.tobytes(), "NaNs have another payload"
            return
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
        if expected.size:
            assert np.mean(np.abs(actual.astype(float) - expected)) <= self.tolerance

    @pytest.fixture(scope="class")
    @classmethod
    def example(cls, tmp_path_factory: pytest.TempPathFactory) -> Example:
        """The recording under test; one is enough, since tests that read it write nothing to it."""
        return cls().recording(tmp_path_factory.mktemp("layout"))

    @pytest.fixture
    def store(self, example: Example) -> Iterator[imgstore_zarr.ImgStore]:
        """The recording under test, opened."""
        with example.open() as store:
            yield store

    # Opening.

    def test_every_spelling_of_the_location_opens(self, example: Example) -> None:
        uuid = example.open().uuid
        for location in self.spellings(example):
            is_url = isinstance(location, str) and "://" in location
            options = example.storage_options if is_url else None
            with imgstore_zarr.open(location, storage_options=options) as store:
                assert store.frame_count == len(example), location
                assert store.uuid == uuid

    def test_metadata(self, example: Example, store: imgstore_zarr.ImgStore) -> None:
        stack = example.stack
        assert store.mode == "r"
        assert len(store) == store.frame_count == len(stack)
        assert store.image_shape == stack.shape[1:]
        assert store.dtype == stack.dtype
        assert store.frames.shape == stack.shape
        assert store.frames.dtype == stack.dtype
        assert store.frames.nbytes == stack.nbytes
        assert (store.frame_min, store.frame_max) == (min(example.numbers), max(example.numbers))
        assert store.frame_time_min == min(example.times)
        assert store.frame_time_max == max(example.times)
        assert store.duration == max(example.times) - min(example.times)
        assert store.created[0].tzinfo is not None
        assert Path(store.full_path).name == "metadata.yaml"
        assert math.isnan(store.frame_number)
        assert "ImgStore" in repr(store)
        assert "<table>" in store._repr_html_()

    def test_index(self, example: Example, store: imgstore_zarr.ImgStore) -> None:
        assert store.index.frame_number.tolist() == list(example.numbers)
        assert store.index.frame_time.tolist() == list(example.times)
        assert store.get_frame_metadata() == {
            "frame_number": list(example.numbers),
            "frame_time": list(example.times),
        }
        spans = list(store.index.chunks())
        assert [span.number for span in spans] == store.chunks
        assert [p for span in spans for p in range(span.start, span.stop)] == [*range(len(example))]

    def test_opening_and_reading_write_nothing(self, example: Example) -> None:
        before = self.contents(example)
        with example.open() as store:
            _ = store.frames[...], store.get_extra_data(), store.report(), repr(store)
            _ = store.to_xarray().values, store.to_datatree()
        assert self.contents(example) == before

    # Reading one image after the other.

    @pytest.mark.parametrize("order", ["forward", "backward", "random"])
    def test_images_by_position(
        self, example: Example, store: imgstore_zarr.ImgStore, order: str
    ) -> None:
        positions = np.arange(len(example))
        if order == "backward":
            positions = positions[::-1]
        elif order == "random":
            positions = np.random.default_rng(0).choice(positions, 2 * len(positions))
        for position in positions.tolist():
            image, metadata = store.get_image(frame_index=position)
            self.check(image, example.images[position])
            assert metadata == (example.numbers[position], example.times[position])
            assert store.frame_number == example.numbers[position]

    def test_images_by_number(self, example: Example, store: imgstore_zarr.ImgStore) -> None:
        for number in reversed(example.numbers):
            first = list(example.numbers).index(number)
            given: Any
            for given in (number, np.int64(number)):
                image, metadata = store.get_image(given)
                self.check(image, example.images[first])
                assert metadata == (number, example.times[first])

    def test_images_by_nearest_number(
        self, example: Example, store: imgstore_zarr.ImgStore
    ) -> None:
        low, high = min(example.numbers), max(example.numbers)
        for wanted in (low - 5, high + 5, *range(low, high + 1, max(1, (high - low) // 20))):
            nearest = min(range(len(example)), key=lambda i: abs(example.numbers[i] - wanted))
            image, metadata = store.get_image(wanted, exact_only=False)
            assert metadata == (example.numbers[nearest], example.times[nearest])
            self.check(image, example.images[nearest])

    def test_images_by_nearest_time(self, example: Example, store: imgstore_zarr.ImgStore) -> None:
        low, high = min(example.times), max(example.times)
        for wanted in (*np.linspace(low - 1, high + 1, 20).tolist(), *example.times):
            nearest = min(range(len(example)), key=lambda i: abs(example.times[i] - wanted))
            image, metadata = store.get_nearest_image(wanted)
            assert metadata == (example.numbers[nearest], example.times[nearest])
            self.check(image, example.images[nearest])

    def test_iteration_leaves_the_cursor(
        self, example: Example, store: imgstore_zarr.ImgStore
    ) -> None:
        store.get_image(frame_index=2)
        rows = zip(store, example.images, example.numbers, example.times, strict=True)
        for (image, metadata), expected, number, time in rows:
            self.check(image, expected)
            assert metadata == (number, time)
        assert store.get_next_framenumber() == example.numbers[3]

    def test_cursor(self, example: Example, store: imgstore_zarr.ImgStore) -> None:
        for position, image in enumerate(example.images):
            assert store.get_next_framenumber() == example.numbers[position]
            read, metadata = store.get_next_image()
            self.check(read, image)
            assert metadata == (example.numbers[position], example.times[position])
        with pytest.raises(imgstore_zarr.EndOfRecordingError):
            store.get_next_image()
        with pytest.raises(EOFError):
            store.get_next_framenumber()
        store.get_nearest_image(example.times[1])
        self.check(store.get_next_image()[0], example.images[2])

    def test_images_are_the_callers_own(
        self, example: Example, store: imgstore_zarr.ImgStore
    ) -> None:
        image, _ = store.get_image(frame_index=1)
        image[...] = 0
        self.check(store.get_image(frame_index=1)[0], example.images[1])

    # What is not there.

    def test_positions_out_of_range(self, example: Example, store: imgstore_zarr.ImgStore) -> None:
        for position in (-1, len(example), 2**70):
            with pytest.raises(imgstore_zarr.FrameNotFoundError, match=str(position)):
                store.get_image(frame_index=position)
        key: Any
        for key in (len(example), -len(example) - 1, [0, len(example)], (0, 10**9)):
            with pytest.raises(IndexError):
                store.frames[key]
        for key in (1.0, "0", None, (..., ...), (0,) * 5, np.ones(len(example) + 1, bool)):
            with pytest.raises(IndexError):
                store.frames[key]

    def test_unknown_numbers(self, example: Example, store: imgstore_zarr.ImgStore) -> None:
        taken = {*example.numbers}
        free = next(n for n in itertools.count(min(taken)) if n not in taken)
        for number in (free, min(taken) - 1, max(taken) + 1, 2**70):
            with pytest.raises(imgstore_zarr.FrameNotFoundError, match=str(number)):
                store.get_image(number)
            with pytest.raises(ValueError, match=str(number)):  # what imgstore raised
                store.get_image(number)
        with pytest.raises(imgstore_zarr.FrameNotFoundError):
            store.get_nearest_image(math.nan)
        self.check(store.get_next_image()[0], example.images[0])

    # Many frames at once.

    @pytest.mark.parametrize("kind", INDICES)
    def test_frames_are_indexed_as_numpy_does(
        self, example: Example, store: imgstore_zarr.ImgStore, kind: str
    ) -> None:
        index = INDICES[kind]
        key = index(example.stack.shape) if callable(index) else index
        self.check(np.asarray(store.frames[key]), np.asarray(example.stack[key]))

    def test_frames_as_an_array(self, example: Example, store: imgstore_zarr.ImgStore) -> None:
        self.check(np.asarray(store.frames), example.stack)
        assert len(store.frames) == len(example)
        for frame, image in zip(store.frames, example.images, strict=True):
            self.check(frame, image)

    def test_frames_are_read_into_the_callers_array(
        self, example: Example, store: imgstore_zarr.ImgStore
    ) -> None:
        positions = np.array([3, 0, 3])
        out = np.empty((3, *store.image_shape), store.dtype)
        assert store.frames.source.read(positions, out=out) is out
        self.check(out, example.stack[positions])
        with pytest.raises(ValueError, match="out has shape"):
            store.frames.source.read(positions, out=out[:2])

    # Elsewhere.

    def test_pickling(self, example: Example, store: imgstore_zarr.ImgStore) -> None:
        store.get_image(frame_index=1)
        for thing in (store, store.frames, store.to_xarray()):
            # Where the pixels are, and not the pixels.
            assert len(pickle.dumps(thing)) < 20_000 + self.pickled_bytes(example)
        copy = pickle.loads(pickle.dumps(store))
        self.check(copy.frames[...], example.stack)
        self.check(copy.get_next_image()[0], example.images[2])
        self.check(pickle.loads(pickle.dumps(store.frames))[1:3], example.stack[1:3])
        self.check(pickle.loads(pickle.dumps(store.to_xarray())).values, example.stack)

    def pickled_bytes(self, example: Example) -> int:
        """Return what the location itself takes, pickled; stores in memory take their contents."""
        return len(pickle.dumps(example.place))

    def test_threads(self, example: Example, store: imgstore_zarr.ImgStore) -> None:
        positions = np.random.default_rng(1).integers(0, len(example), 64)
        with ThreadPoolExecutor(8) as pool:
            images = list(pool.map(lambda position: store.frames[position], positions))
        self.check(np.stack(images), example.stack[positions])

    def test_fork(self, example: Example, store: imgstore_zarr.ImgStore) -> None:
        self.check(store.frames[...], example.stack)

        def read() -> None:
            if self.survives_fork:
                self.check(store.frames[...], example.stack)
            else:
                with pytest.raises(imgstore_zarr.ImgStoreError, match="fork"):
                    _ = store.frames[...]
            # What the child inherited and let go of must not wait for threads of the parent.
            gc.collect()

        processes = [multiprocessing.get_context("fork").Process(target=read) for _ in range(2)]
        for process in processes:
            with warnings.catch_warnings():
                # Threads of others are no concern of a child that only reads.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
        self.check(store.frames[::-1], example.stack[::-1])
        for process in processes:
            process.join(60)
            assert process.exitcode == 0

    def test_reading_after_close_opens_again(
        self, example: Example, store: imgstore_zarr.ImgStore
    ) -> None:
        for _ in range(2):
            self.check(store.frames[1], example.images[1])
            store.close()

    # As a DataArray.

    @pytest.mark.filterwarnings("ignore:.*better is:UserWarning")
    @pytest.mark.parametrize("chunks", [None, "auto", 2, {"frame": 3, "y": 4}], ids=str)
    def test_to_xarray(self, example: Example, store: imgstore_zarr.ImgStore, chunks: Any) -> None:
        if chunks is not None:
            pytest.importorskip("dask.array")
        stack = example.stack
        array = store.to_xarray(chunks=chunks)
        assert (array.chunks is None) == (chunks is None)
        assert array.name == "image"
        assert array.dims == ("frame", "y", "x", "channel")[: stack.ndim]
        assert array.frame_number.values.tolist() == list(example.numbers)
        assert array.frame_time.values.tolist() == list(example.times)
        assert array.frame_number.dtype == np.int64
        assert array.frame_time.dtype == np.float64
        if stack.ndim == 4 and stack.shape[-1] == 3:
            assert array.channel.values.tolist() == ["b", "g", "r"]
        self.check(array.values, stack)
        self.check(array.isel(frame=[4, 1], y=slice(1, 5, 2)).values, stack[[4, 1], 1:5:2])
        self.check(array.isel(frame=2, x=[3, 0]).values, stack[2][:, [3, 0]])

    def test_to_xarray_looks_up(self, example: Example, store: imgstore_zarr.ImgStore) -> None:
        unique = [n for n in example.numbers if list(example.numbers).count(n) == 1]
        array = store.to_xarray(index="frame_number")
        for number in unique[:3]:
            position = list(example.numbers).index(number)
            self.check(array.sel(frame_number=number).values, example.images[position])
        if len({*example.times}) == len(example):
            by_time = store.to_xarray(index="frame_time").sel(frame_time=example.times[3])
            self.check(by_time.values, example.images[3])

    # What lies beside the frames.

    def test_extra_data(self, example: Example, store: imgstore_zarr.ImgStore) -> None:
        assert store.has_extra_data == (example.extra is not None)
        assert bool(store.find_extra_data_files()) == store.has_extra_data
        table = store.get_extra_data()
        if example.extra is None:
            assert table is None
        else:
            assert table is not None
            assert len(table) == len(example.extra)
            for row, record in zip(table.to_dict("records"), example.extra, strict=True):
                assert {name: row[name] for name in record} == dict(record)

    def test_report(self, example: Example, store: imgstore_zarr.ImgStore) -> None:
        steps = [b - a for a, b in itertools.pairwise(example.numbers)]
        report = store.report()
        assert report.ok, report.problems
        assert report.frame_count == len(example)
        assert report.chunk_count == len(store.chunks)
        assert report.dropped == sum(step - 1 for step in steps if step > 1)
        assert report.repeated == steps.count(0)
        assert report.backward == sum(step < 0 for step in steps)
        assert report.interval == float(np.median(np.diff(example.times)))
