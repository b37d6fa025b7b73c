"""VideoFrames: the frames of a recording in video chunks, as one array."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import ChunkMissingError, CorruptChunkError
from imgstore_zarr.frames import Positions, Window, output_array, window_shape
from imgstore_zarr.index import Int64s
from imgstore_zarr.pixels import is_color
from imgstore_zarr.storage import Directory
from imgstore_zarr.video import VideoFile

OPEN_FILES = 4
"""How many video files one source keeps open, each with its decoder."""


class VideoFrames:
    """The frames of a recording in video chunks.

    Parameters
    ----------
    location
        The recording.
    extension
        The ending of the chunks' files.
    image_shape
        (y, x) for gray or (y, x, 3).
    chunk_numbers, chunk_starts
        int64 (chunk,), the number of each chunk and the position of its first frame.
    frame_count
        Frames in the index.
    """

    def __init__(
        self,
        location: Directory,
        extension: str,
        image_shape: tuple[int, ...],
        chunk_numbers: Int64s,
        chunk_starts: Int64s,
        frame_count: int,
    ) -> None:
        self._location = location
        self._extension = extension
        self._image_shape = image_shape
        self._numbers = chunk_numbers
        self._starts = chunk_starts
        self._count = frame_count
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[int, VideoFile] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_files")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    @property
    def shape(self) -> tuple[int, ...]:
        """(frame, y, x) or (frame, y, x, 3)."""
        return (self._count, *self._image_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8."""
        return np.dtype(np.uint8)

    @property
    def preferred_chunks(self) -> tuple[int, ...]:
        """A GOP of the first chunk, whole images; one frame where there is none."""
        if not self._count:
            return (1, *self._image_shape)
        try:
            gop = self._file(0).preferred_chunks[0]
        except (ChunkMissingError, CorruptChunkError):
            gop = 1  # it is only advice: reading says what is wrong
        return (gop, *self._image_shape)

    def read(
        self, positions: Positions, window: Window | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read frames; see `FrameSource.read`. Each chunk is visited once."""
        out = output_array(window_shape(self.shape, len(positions), window), self.dtype, out)
        chunks = np.searchsorted(self._starts, positions, side="right") - 1
        for chunk in np.unique(chunks).tolist():
            places = np.flatnonzero(chunks == chunk)
            file = self._file(chunk)
            self._check_shape(file, chunk)
            inside = positions[places] - self._starts[chunk]
            if len(places) == len(positions):
                file.read(inside, window, out)
            else:
                out[places] = file.read(inside, window)
        return out

    def _file(self, chunk: int) -> VideoFile:
        with self._lock:
            file = self._files.get(chunk)
            if file is None:
                file = self._files[chunk] = self._open(chunk)
            self._files.move_to_end(chunk)
            forgotten = None
            if len(self._files) > OPEN_FILES:
                _, forgotten = self._files.popitem(last=False)
        if forgotten is not None:
            # Waits for a thread that is reading it just now.
            forgotten.close()
        return file

    def _open(self, chunk: int) -> VideoFile:
        number = int(self._numbers[chunk])
        path = self._location.root / f"{number:06d}{self._extension}"
        return VideoFile(
            path,
            color=is_color(self._image_shape),
            name=f"{self._location.name}: chunk {number} ({path.name}, from position "
            f"{self._starts[chunk]} on)",
        )

    def _check_shape(self, file: VideoFile, chunk: int) -> None:
        if file.shape[1:] != self._image_shape:
            raise CorruptChunkError(
                f"{self._location.name}: the images of chunk {self._numbers[chunk]} have shape "
                f"{file.shape[1:]}, metadata.yaml says {self._image_shape}"
            )

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            files, self._files = self._files, OrderedDict()
        for file in files.values():
            file.close()
