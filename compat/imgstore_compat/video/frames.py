"""VideoFrames: the frames of a recording in video chunks, as one array."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import ChunkMissingError, CorruptChunkError, UnsupportedFormatError
from imgstore_zarr.frames import Positions, Window, output_array, window_shape
from imgstore_zarr.index import Int64s
from imgstore_zarr.pixels import is_color
from imgstore_zarr.shared_sources import packed, unpacked
from imgstore_zarr.storage import Directory
from imgstore_zarr.video import VideoFile

OPEN_FILES = 4
"""How many video files one source keeps open when nobody reads, each once; the one that was read last
up to `LANES` times more. Each thread that is reading another chunk adds ``1 + LANES`` to that."""


# Chunks of which the packet tables are read only to find good places for blocks.
_LISTED = 16


@dataclass
class _Lease:
    file: VideoFile
    readers: int = 0


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
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._leases: OrderedDict[int, _Lease] = OrderedDict()
        self._last = -1
        # Last: who sees it finds the new ones.
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_lock", "_process", "_leases", "_last")
        state = {k: v for k, v in self.__dict__.items() if k not in own}
        return state | {name: packed(state[name]) for name in ("_numbers", "_starts")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state |= {name: unpacked(state[name]) for name in ("_numbers", "_starts")}
        self.__dict__.update(state)
        self._start_afresh()

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
            with self._lease(0) as file:
                gop = file.preferred_chunks[0]
        except (OSError, UnsupportedFormatError):
            gop = 1  # it is only advice: reading says what is wrong
        return (gop, *self._image_shape)

    def entries(self, chunk: int) -> Int64s | None:
        """Return where the GOPs of a chunk begin; of a long recording nobody waits for that."""
        if len(self._starts) > _LISTED:
            return None
        try:
            with self._lease(chunk) as file:
                return file.entries()
        except (OSError, UnsupportedFormatError):
            return None  # it is only advice: reading says what is wrong

    def read(
        self, positions: Positions, window: Window | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read frames; see `FrameSource.read`. Each chunk is visited once."""
        chunks = np.searchsorted(self._starts, positions, side="right") - 1
        if len(chunks) and bool(np.all(chunks == chunks[0])):
            return self._read_chunk(int(chunks[0]), positions, window, out)
        out = output_array(window_shape(self.shape, len(positions), window), self.dtype, out)
        for chunk in np.unique(chunks).tolist():
            places = np.flatnonzero(chunks == chunk)
            out[places] = self._read_chunk(chunk, positions[places], window, None)
        return out

    def _read_chunk(
        self, chunk: int, positions: Positions, window: Window | None, out: NDArray[Any] | None
    ) -> NDArray[Any]:
        with self._lease(chunk) as file:
            try:
                self._check_shape(file, chunk)
            except (ChunkMissingError, CorruptChunkError) as error:
                raise type(error)(
                    f"{error}; so the frame at position {positions[0]} cannot be read"
                ) from error
            return file.read(positions - self._starts[chunk], window, out)

    def _enter(self) -> threading.Lock:
        # A forked process must not wait for a thread of its parent.
        if self._process != os.getpid():
            self._start_afresh()
        return self._lock

    @contextmanager
    def _lease(self, chunk: int) -> Iterator[VideoFile]:
        """Lend the file of a chunk, which nobody closes as long as it is read."""
        with self._enter():
            lease = self._leases.get(chunk)
            if lease is None:
                lease = self._leases[chunk] = _Lease(self._open(chunk))
            if next(reversed(self._leases)) != chunk:
                self._leases.move_to_end(chunk)
            lease.readers += 1
            self._close_idle(OPEN_FILES)
            self._rest_others(chunk)
        try:
            yield lease.file
        finally:
            with self._enter():
                lease.readers -= 1
                if self._leases.get(chunk) is lease:
                    self._close_idle(OPEN_FILES)
                    if chunk != self._last and not lease.readers:
                        lease.file.rest()
                elif not lease.readers:
                    lease.file.close()

    def _rest_others(self, chunk: int) -> None:
        """What only helps to read on is kept for the chunk that was read last."""
        if chunk != self._last:
            for other, lease in self._leases.items():
                if other != chunk and not lease.readers:
                    lease.file.rest()
            self._last = chunk

    def _close_idle(self, keep: int) -> None:
        """Close files that nobody reads, those not used for longest first, until few are open."""
        idle = [chunk for chunk, lease in self._leases.items() if not lease.readers]
        for chunk in idle[: max(len(self._leases) - keep, 0)]:
            self._leases.pop(chunk).file.close()

    def _open(self, chunk: int) -> VideoFile:
        number = int(self._numbers[chunk])
        path = self._location.root / f"{number:06d}{self._extension}"
        return VideoFile(
            path,
            color=is_color(self._image_shape),
            name=f"{self._location.name}: chunk {number} ({path.name})",
            first=int(self._starts[chunk]),
        )

    def _check_shape(self, file: VideoFile, chunk: int) -> None:
        if file.shape[1:] != self._image_shape:
            raise CorruptChunkError(
                f"{self._location.name}: the images of chunk {self._numbers[chunk]} have shape "
                f"{file.shape[1:]}, metadata.yaml says {self._image_shape}; one of the two is of "
                "another recording"
            )

    def close(self) -> None:
        """Close every file; those that are being read, when their readers are done."""
        with self._enter():
            self._close_idle(0)
            self._leases.clear()
