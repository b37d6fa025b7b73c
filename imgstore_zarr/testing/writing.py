"""WritableLayoutTests: what must be true of every format that stores exactly what it is given."""

# ruff: noqa: D102 - the name of a test says what is tested

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

import imgstore_zarr
from imgstore_zarr.testing.example import Example
from imgstore_zarr.testing.reading import LayoutTests


class WritableLayoutTests(LayoutTests):
    """What must be true of a format that stores exactly what it is given.

    The recordings that it reads are those that it has written.

    Attributes
    ----------
    format, imgshape, imgdtype
        As `create` takes them.
    options
        Further arguments of `create`.
    """

    format: str
    imgshape: tuple[int, ...]
    imgdtype: DTypeLike = np.uint8
    options: Mapping[str, Any] = {"chunksize": 4}

    numbers: Sequence[int] = (100, 101, 105, 106, 106, 107, 3, 4, 108, 200)
    times: Sequence[float] = tuple(1.7e9 + i / 25 + i % 3 / 1000 for i in range(10))

    def destination(self, directory: Path) -> Any:
        """Return where a recording can be made."""
        return directory / "recording"

    def image(self, seed: int) -> NDArray[Any]:
        """Return an image that differs from those of other seeds in every bit it can."""
        dtype = np.dtype(self.imgdtype)
        count = math.prod(self.imgshape)
        random = np.random.default_rng(seed)
        if dtype.kind == "f":
            return random.normal(0, 1e3, count).astype(dtype).reshape(self.imgshape)
        data = random.integers(0, 256, count * dtype.itemsize, np.uint8)
        return data.view(dtype).reshape(self.imgshape)

    def create(self, location: Any, **options: Any) -> imgstore_zarr.ImgStoreWriter:
        """Begin a recording of the format."""
        options = {**self.options, **options}
        return imgstore_zarr.create(location, self.format, self.imgshape, self.imgdtype, **options)

    def recording(self, directory: Path) -> Example:
        """Write one of ten frames, with a gap, a repeat, a step back, and extra data."""
        location = self.destination(directory)
        images = [self.image(seed) for seed in range(len(self.numbers))]
        extra = []
        with self.create(location) as writer:
            for i, (image, number) in enumerate(zip(images, self.numbers, strict=True)):
                writer.add_image(image, number, self.times[i])
                if i % 2:
                    writer.add_extra_data(temperature=20 + i / 8, label=f"é{i}", on=i > 4)
                    own = {"temperature": 20 + i / 8, "label": f"é{i}", "on": i > 4}
                    where = {"frame_index": i, "frame_number": number, "frame_time": self.times[i]}
                    extra.append({**own, **where})
        return Example(location, images, self.numbers, self.times, extra)

    def read(self, location: Any) -> NDArray[Any]:
        """Return all pixels of a recording, opened anew."""
        with imgstore_zarr.open(location) as store:
            return store.frames[...]

    def test_metadata_come_back(self, tmp_path: Path) -> None:
        metadata = {"name": "é", "n": 3, "f": 0.1, "none": None, "list": [1, {"a": True}]}
        location = self.destination(tmp_path)
        with self.create(location, metadata=metadata) as writer:
            writer.add_image(self.image(0), 0, 0.0)
            written = writer.uuid, writer.created, writer.format, writer.filename
            assert writer.user_metadata == metadata
        with imgstore_zarr.open(location) as store:
            assert store.user_metadata == metadata
            assert (store.uuid, store.created, store.format, store.filename) == written
            assert store.lossless

    def test_what_the_writer_says_of_itself(self, tmp_path: Path) -> None:
        with self.create(self.destination(tmp_path)) as writer:
            assert writer.mode == "w"
            assert len(writer) == writer.frame_count == 0
            assert math.isnan(writer.frame_min)
            for i, number in enumerate(self.numbers):
                writer.add_image(self.image(i), number, self.times[i])
                assert len(writer) == i + 1
                assert (writer.frame_number, writer.frame_time) == (number, self.times[i])
            assert (writer.frame_min, writer.frame_max) == (min(self.numbers), max(self.numbers))
            assert writer.duration == self.times[-1] - self.times[0]
            assert writer.image_shape == self.imgshape

    def test_flush_makes_frames_visible(self, tmp_path: Path) -> None:
        location = self.destination(tmp_path)
        images = np.stack([self.image(i) for i in range(10)])
        with self.create(location) as writer:
            for i, image in enumerate(images):
                writer.add_image(image, i, float(i))
                writer.flush()
                writer.flush()
                self.check(self.read(location), images[: i + 1])
        self.check(self.read(location), images)

    def test_a_reader_keeps_what_it_opened(self, tmp_path: Path) -> None:
        location = self.destination(tmp_path)
        images = np.stack([self.image(i) for i in range(9)])
        with self.create(location) as writer:
            for i in range(3):
                writer.add_image(images[i], i, float(i))
            writer.flush()
            with imgstore_zarr.open(location) as before:
                for i in range(3, 9):
                    writer.add_image(images[i], i, float(i))
                writer.flush()
                self.check(before.frames[...], images[:3])

    def test_close_twice_and_use_after_close(self, tmp_path: Path) -> None:
        writer = self.create(self.destination(tmp_path))
        writer.add_image(self.image(0), 0, 0.0)
        writer.close()
        writer.close()
        for use in (writer.flush, writer.empty, lambda: writer.add_image(self.image(1), 1, 1.0)):
            with pytest.raises(imgstore_zarr.ImgStoreError, match="closed"):
                use()
        self.check(self.read(self.destination(tmp_path)), self.image(0)[None])

    def test_a_recording_without_frames(self, tmp_path: Path) -> None:
        location = self.destination(tmp_path)
        self.create(location).close()
        with imgstore_zarr.open(location) as store:
            assert len(store) == 0
            assert store.frames[...].shape == (0, *self.imgshape)
            assert store.to_xarray().values.shape == (0, *self.imgshape)
            assert list(store) == []
            assert store.chunks == []
            assert store.report().frame_count == 0
            assert math.isnan(store.frame_min)
            with pytest.raises(imgstore_zarr.EndOfRecordingError):
                store.get_next_image()
            with pytest.raises(imgstore_zarr.FrameNotFoundError):
                store.get_image(0, exact_only=False)

    def test_an_existing_recording_is_never_overwritten(self, tmp_path: Path) -> None:
        example = self.recording(tmp_path)
        with pytest.raises(imgstore_zarr.RecordingExistsError, match="already holds a recording"):
            self.create(example.location)
        self.check(self.read(example.location), example.stack)

    def test_a_recording_that_is_being_written_is_refused(self, tmp_path: Path) -> None:
        location = self.destination(tmp_path)
        with self.create(location) as writer:
            with pytest.raises(FileExistsError):
                self.create(location)
            writer.add_image(self.image(0), 0, 0.0)
        self.check(self.read(location), self.image(0)[None])

    def test_a_wrong_image_is_refused_and_recording_goes_on(self, tmp_path: Path) -> None:
        location = self.destination(tmp_path)
        good = [self.image(i) for i in range(6)]
        bad = [good[0][1:], good[0][None], good[0].astype(np.complex128), np.zeros(())]
        with self.create(location) as writer:
            for i, image in enumerate(good):
                writer.add_image(image, i, float(i))
                for wrong in bad:
                    with pytest.raises(imgstore_zarr.FrameMismatchError, match="not written"):
                        writer.add_image(wrong, 77, 77.0)
                assert len(writer) == i + 1
        with imgstore_zarr.open(location) as store:
            self.check(store.frames[...], np.stack(good))
            assert store.index.frame_number.tolist() == [*range(6)]

    def test_images_of_any_memory_order(self, tmp_path: Path) -> None:
        location = self.destination(tmp_path)
        image = self.image(0)
        swapped = image.astype(image.dtype.newbyteorder())
        wide = np.repeat(image, 2, axis=1)[:, ::2]
        variants = [image, np.asfortranarray(image), image[::-1, ::-1], wide, swapped]
        with self.create(location) as writer:
            for i, variant in enumerate(variants):
                writer.add_image(variant, i, float(i))
        expected = np.stack([image, image, image[::-1, ::-1], image, image])
        self.check(self.read(location), expected)

    def test_the_caller_may_use_the_image_again(self, tmp_path: Path) -> None:
        location = self.destination(tmp_path)
        buffer = np.empty(self.imgshape, self.imgdtype)
        with self.create(location) as writer:
            for i in range(6):
                buffer[...] = self.image(i)
                writer.add_image(buffer, i, float(i))
        self.check(self.read(location), np.stack([self.image(i) for i in range(6)]))

    def test_empty_begins_anew(self, tmp_path: Path) -> None:
        location = self.destination(tmp_path)
        with self.create(location) as writer:
            for i in range(7):
                writer.add_image(self.image(i), i, float(i))
                writer.add_extra_data(a=i)
            writer.flush()
            writer.empty()
            assert len(writer) == 0
            with imgstore_zarr.open(location) as store:
                assert len(store) == 0
                assert store.get_extra_data() is None
            for i in range(5):
                writer.add_image(self.image(50 + i), 50 + i, float(i))
        with imgstore_zarr.open(location) as store:
            self.check(store.frames[...], np.stack([self.image(50 + i) for i in range(5)]))
            assert store.index.frame_number.tolist() == [50, 51, 52, 53, 54]
            assert not store.has_extra_data
