"""ImgStoreWriter: the interface of imgstore for writing, once, for every layout."""

from __future__ import annotations

import logging
import math
import operator
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.described import NAN, Described, FrameMetadata
from imgstore_zarr.errors import (
    FrameMismatchError,
    ImgStoreError,
    InvalidMetadataError,
    UnsupportedFormatError,
)
from imgstore_zarr.extra import EXTRA_DATA_FILE_EXTENSIONS
from imgstore_zarr.frames import FrameSink, InsertsChunks, WaitsForRoom
from imgstore_zarr.interruption import Deferred
from imgstore_zarr.layouts import Appends, Layout, Parts
from imgstore_zarr.pixels import Conversion, ensure_color, is_color
from imgstore_zarr.recording import RecordingInfo, RecordingSpec
from imgstore_zarr.sqlite_index import index_file, save_sqlite
from imgstore_zarr.storage import Location

_log = logging.getLogger("imgstore_zarr")


def _appending(layout: Layout, location: Location, spec: RecordingSpec) -> tuple[FrameSink, Parts]:
    if not isinstance(layout, Appends):
        raise UnsupportedFormatError(
            f"{location.name}: frames cannot be appended to recordings of the layout {layout.name}; "
            "make another recording"
        )
    return layout.append(location, spec)


@runtime_checkable
class StoresInThreads(Protocol):
    """A sink that waits for threads, which Ctrl-C may end, in `empty` and `close`."""

    @property
    def is_given_up(self) -> bool:
        """Whether others may write; if not, `close` is to be called again."""
        ...

    def empty_with(self, reset: Callable[[], None]) -> None:
        """As `FrameSink.empty`; calls `reset` in the step from which on nothing is there."""
        ...


class ImgStoreWriter(Described):
    """A recording that is being written.

    `imgstore_zarr.create` makes these. Use it as a context manager, or call `close`. An image or
    record that is refused leaves the recording as it was, and writing can go on.

    Parameters
    ----------
    location
        Where the recording is made.
    layout
        How it will lie there.
    spec
        What it will be.
    bad_extra
        What `add_extra_data` does with a record that cannot be stored: ``"raise"``, or ``"log"`` and
        go on, as imgstore does.
    append
        Whether to go on with the recording that is there.

    Attributes
    ----------
    frame_number, frame_time
        Of the image that was added last; NaN before the first.
    frame_min, frame_max
        The smallest and largest frame number so far; NaN before the first.
    """

    mode: Literal["w"] = "w"

    def __init__(
        self,
        location: Location,
        layout: Layout,
        spec: RecordingSpec,
        bad_extra: Literal["raise", "log"] = "raise",
        append: bool = False,
    ) -> None:
        self._location = location
        self._layout = layout
        self._bad_extra = bad_extra
        self._imgshape = spec.imgshape
        self._sink: FrameSink
        so_far: Parts | None = None
        if append:
            self._sink, so_far = _appending(layout, location, spec)
        else:
            self._sink = layout.create(location, spec)
        # Formats like png+color and pgm store something else than they are given.
        stored = self._sink.info
        encoding = spec.encoding if stored.encoding is None else None
        self._conversion = Conversion.between(spec.imgshape, stored.stored_shape, encoding)
        # Video is cut to even sizes; a caller may have done that already.
        even = tuple(n & -2 for n in spec.imgshape[:2])
        self._sizes = {spec.imgshape[:2]} | ({even} & {stored.stored_shape[:2]})
        self._closed = False
        self._reset()
        if so_far is not None:
            self._note_all(so_far)

    def _reset(self) -> None:
        self._count = 0
        self._has_extra = False
        self.frame_number: int | float = NAN
        self.frame_time = NAN
        self.frame_min: int | float = NAN
        self.frame_max: int | float = NAN
        self._first_time = NAN

    def _note_all(self, parts: Parts) -> None:
        parts.log_problems()
        numbers, times = parts.index.frame_number, parts.index.frame_time
        self._has_extra = parts.extra.exists()
        self._count = len(numbers)
        if self._count:
            self.frame_min, self.frame_max = int(numbers.min()), int(numbers.max())
            self._first_time = float(times[0])
            self.frame_number, self.frame_time = int(numbers[-1]), float(times[-1])

    @property
    def info(self) -> RecordingInfo:
        """What is known of the recording apart from its frames."""
        return self._sink.info

    @property
    def frame_count(self) -> int:
        """Frames so far."""
        return self._count

    def __len__(self) -> int:
        return self._count

    @property
    def frame_time_min(self) -> float:
        """The time of the first frame so far, in seconds."""
        return self._first_time

    @property
    def frame_time_max(self) -> float:
        """The time of the last frame so far, in seconds."""
        return self.frame_time

    @property
    def duration(self) -> float:
        """From the first to the last frame so far, in seconds."""
        return self.frame_time - self._first_time if self._count else 0.0

    @property
    def chunks(self) -> list[int]:
        """The numbers of the chunks that are complete, as in imgstore."""
        return list(range(self._sink.chunk_count))

    def add_image(self, img: NDArray[Any], frame_number: float, frame_time: float | None) -> None:
        """Append one image.

        Parameters
        ----------
        img
            Of the recording's ``imgshape`` and ``imgdtype``. Gray is (y, x) or (y, x, 1), and is
            repeated in colour recordings. Video takes images of an odd ``imgshape`` also when they
            are cut to even sizes already.
        frame_number
            The camera's number; an integer that int64 holds, or a float that is one.
        frame_time
            In seconds; NaN or None where it is not known, which is kept as NaN.

        Raises
        ------
        FrameMismatchError
            Another shape or dtype.
        InvalidMetadataError
            A frame number that is no integer, or a time that is infinite or no number.
        """
        self._check_open()
        try:
            pixels = np.asarray(img)
        except ValueError as error:
            raise FrameMismatchError(
                f"{self.filename}: the image for frame {frame_number} is no array ({error}); "
                "the image was not written"
            ) from error
        pixels, fits = self._fitted(pixels)
        if not fits or pixels.dtype.newbyteorder("=") != self.dtype:
            raise FrameMismatchError(
                f"{self.filename}: the image for frame {frame_number} has shape {pixels.shape} and "
                f"dtype {pixels.dtype}; the recording takes {self._imgshape} and {self.dtype}; "
                "the image was not written"
                + (
                    "; imgstore_zarr.ensure_gray makes it gray"
                    if is_color(pixels.shape) and pixels.shape[:2] == self._imgshape
                    else ""
                )
            )
        number, time = self._checked(frame_number, frame_time)
        image = self._conversion.apply(pixels)
        if isinstance(self._sink, WaitsForRoom):
            self._sink.wait_for_room()
        # Ctrl-C here would leave a frame half taken.
        with Deferred():
            self._sink.append(image, number, time)
            self._note(number, time)

    def _fitted(self, image: NDArray[Any]) -> tuple[NDArray[Any], bool]:
        """An image in the shape that is recorded, and whether it has such a shape."""
        size, channels = image.shape[:2], self._imgshape[2:]
        if image.ndim == 2 or image.shape[2:] == (1,):
            if channels == (3,):
                image = ensure_color(image)
            elif channels in ((), (1,)):
                image = image.reshape(*size, *channels)
        return image, size in self._sizes and image.shape[2:] == channels

    def _note(self, number: int, time: float) -> None:
        self.frame_min = number if not self._count else min(number, self.frame_min)
        self.frame_max = number if not self._count else max(number, self.frame_max)
        if not self._count:
            self._first_time = time
        self.frame_number, self.frame_time = number, time
        self._count += 1

    def insert_chunk(
        self,
        video_path: str | os.PathLike[str],
        frame_numbers: Iterable[float],
        frame_times: Iterable[float | None],
        move: bool = True,
    ) -> None:
        """Make a finished video file the next chunk.

        Parameters
        ----------
        video_path
            The file, in the recording's own container, codec aside.
        frame_numbers, frame_times
            One of each per frame of the file.
        move
            Whether the file is moved into the recording or copied.

        Raises
        ------
        UnsupportedFormatError
            The recording is not made of video files, or of those with another ending.
        InvalidMetadataError
            Numbers or times that are none, or not as many as the file has frames.
        FrameMismatchError
            Images of another shape.
        CorruptChunkError, ChunkMissingError
            The file is damaged, or not there.
        """
        self._check_open()
        if not isinstance(self._sink, InsertsChunks):
            raise UnsupportedFormatError(
                f"{self.filename}: files can be inserted as chunks of video, not of {self.format}"
            )
        numbers, times = list(frame_numbers), list(frame_times)
        if len(numbers) != len(times) or not numbers:
            raise InvalidMetadataError(
                f"{self.filename}: {len(numbers)} frame numbers and {len(times)} frame times were "
                f"given for {video_path}; give one of each per frame; nothing was inserted"
            )
        checked = [self._checked(*pair) for pair in zip(numbers, times, strict=True)]
        columns = (np.array(column) for column in zip(*checked, strict=True))
        self._sink.insert_chunk(Path(video_path), *columns, move=move)
        for number, time in checked:
            self._note(number, time)

    def _checked(self, frame_number: Any, frame_time: Any) -> FrameMetadata:
        try:
            whole = isinstance(frame_number, float | np.floating) and frame_number.is_integer()
            number = int(frame_number) if whole else operator.index(frame_number)
            if not -(2**63) <= number < 2**63:
                raise OverflowError("more than 64 bits")
        except (TypeError, OverflowError) as error:
            raise InvalidMetadataError(
                f"{self.filename}: the frame number {frame_number!r} is no 64-bit integer "
                f"({error}); the image was not written"
            ) from error
        try:
            if isinstance(frame_time, str | bytes):
                raise TypeError("text")
            time = NAN if frame_time is None else float(frame_time)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidMetadataError(
                f"{self.filename}: the time of frame {number} is {frame_time!r}, no number; "
                "the image was not written"
            ) from error
        if math.isinf(time):
            raise InvalidMetadataError(
                f"{self.filename}: the time of frame {number} is {time}; give seconds, or NaN where "
                "the time is not known; the image was not written"
            )
        return number, time

    def _check_open(self) -> None:
        if self._closed:
            raise ImgStoreError(f"{self.filename} is closed; imgstore_zarr.open(...) reads it")

    def add_extra_data(self, **data: Any) -> None:
        """Append a record of extra data, which belongs to the image that was added last.

        Raises
        ------
        InvalidMetadataError
            A value that JSON cannot hold. A writer of `new_for_format` logs this as a warning, leaves
            the record out and goes on.
        """
        self._check_open()
        if not data:
            return
        frame = {
            "frame_time": self.frame_time,
            "frame_number": self.frame_number,
            "frame_index": self._count - 1,
        }
        try:
            self._sink.add_extra({**data, **frame})
            self._has_extra = True
        except InvalidMetadataError as error:
            if self._bad_extra == "raise":
                raise
            _log.warning("%s: %s", self.filename, error)

    @property
    def has_extra_data(self) -> bool:
        """Whether there is extra data so far."""
        return self._has_extra

    def find_extra_data_files(
        self, extensions: Sequence[str] = EXTRA_DATA_FILE_EXTENSIONS
    ) -> list[str]:
        """Return where the extra data lie so far."""
        if not self._has_extra:
            return []
        return self._layout.open(self._location).extra.files(extensions)

    def flush(self) -> None:
        """Make everything so far visible to readers.

        After it returns, its frames survive the end of this process, however sudden; a recording made
        with ``durable=True`` also survives power loss.
        """
        self._check_open()
        self._sink.flush()

    def empty(self) -> None:
        """Throw away every frame and all extra data; the recording stays and can be written to."""
        self._check_open()
        if isinstance(self._sink, StoresInThreads):
            self._sink.empty_with(self._reset)
            return
        with Deferred():
            self._sink.empty()
            self._reset()

    def close(self, save_index: bool = False) -> None:
        """Finish the recording; a second call does nothing, unless Ctrl-C has ended the first.

        Parameters
        ----------
        save_index
            Also write the index as SQLite, in imgstore's form.
        """
        sink = self._sink
        if self._closed and (not isinstance(sink, StoresInThreads) or sink.is_given_up):
            return
        self._closed = True
        sink.close()
        if save_index:
            file = index_file(self._location)
            save_sqlite(self._layout.open(self._location).index, file, self._chunk_path)

    def _summary(self) -> dict[str, str]:
        state = "closed" if self._closed else "open"
        return {"format": self.format, "frames": f"{self._count}, {state}"}
