"""VideoFrames: the frames of a recording in video chunks, as one array."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from imgstore_zarr.storage import Location, is_far
from imgstore_zarr.video import Cut, VideoFile, media_at

OPEN_FILES = 4
"""How many video files one source keeps open when nobody reads, each once; the one that was read last
up to `LANES` times more. Each thread that is reading another chunk adds ``1 + LANES`` to that."""


# So many remote files are read at the same time for one call.
_SIDE_BY_SIDE = 8


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
        location: Location,
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
        """A GOP of the first chunk, whole images; one frame where it is not known."""
        if not self._count or not self._lists_packets:
            return (1, *self._image_shape)
        try:
            with self._lease(0) as file:
                gop = file.preferred_chunks[0]
        except (OSError, UnsupportedFormatError):
            gop = 1  # it is only advice: reading says what is wrong
        return (gop, *self._image_shape)

    @property
    def _lists_packets(self) -> bool:
        """Whether it is known without reading the files where their GOPs begin."""
        return not is_far(self._location) or self._extension == ".mp4"

    def boundaries(self, start: int = 0, stop: int | None = None) -> Int64s | None:
        """Return where the GOPs begin, in every chunk; see `Frames.boundaries`.

        None where all of every file would have to be fetched for that.
        """
        if not self._lists_packets:
            return None
        start, stop, _ = slice(start, stop).indices(self._count)
        ends = np.append(self._starts[1:], self._count)
        found = [np.empty(0, np.int64)]
        for chunk in np.flatnonzero((self._starts < stop) & (start < ends)).tolist():
            first, end = int(self._starts[chunk]), int(ends[chunk])
            with self._lease(chunk) as file:
                places = file.boundaries(max(start - first, 0), min(stop, end) - first)
            found.append(first + places)
        return np.concatenate(found)

    def cuts(self, start: int, stop: int) -> list[Cut]:
        """Return the files in which the frames start .. stop-1 lie; see `HasVideo`."""
        ends = np.append(self._starts[1:], self._count)
        found = []
        for chunk in np.flatnonzero((self._starts < stop) & (start < ends)).tolist():
            first, end = int(self._starts[chunk]), int(ends[chunk])
            key, label = self._key(chunk)
            media = media_at(self._location, key, label)
            part = max(start - first, 0), min(stop, end) - first
            found.append(Cut(media, f"{self._location.name}: {label}", *part, first))
        return found

    def read(
        self, positions: Positions, window: Window | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read frames; see `FrameSource.read`. Each chunk is visited once."""
        chunks = np.searchsorted(self._starts, positions, side="right") - 1
        if len(chunks) and bool(np.all(chunks == chunks[0])):
            return self._read_chunk(int(chunks[0]), positions, window, out)
        out = output_array(window_shape(self.shape, len(positions), window), self.dtype, out)

        def read(chunk: int) -> None:
            places = np.flatnonzero(chunks == chunk)
            out[places] = self._read_chunk(chunk, positions[places], window, None)

        there = np.unique(chunks).tolist()
        if len(there) > 1 and is_far(self._location):
            # Each waits for its headers, and then for its GOPs.
            with ThreadPoolExecutor(min(_SIDE_BY_SIDE, len(there))) as pool:
                for _ in pool.map(read, there):
                    pass
        else:
            for chunk in there:
                read(chunk)
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

    def _key(self, chunk: int) -> tuple[str, str]:
        """The key of a chunk's file, and what messages call it."""
        number = int(self._numbers[chunk])
        key = f"{number:06d}{self._extension}"
        return key, f"chunk {number} ({key})"

    def _open(self, chunk: int) -> VideoFile:
        key, label = self._key(chunk)
        return VideoFile(
            media_at(self._location, key, label),
            color=is_color(self._image_shape),
            name=f"{self._location.name}: {label}",
            first=int(self._starts[chunk]),
        )

    def _check_shape(self, file: VideoFile, chunk: int) -> None:
        if file.shape[1:] != self._image_shape:
            raise CorruptChunkError(
                f"{self._location.name}: the images of chunk {self._numbers[chunk]} have shape "
                f"{file.shape[1:]}, metadata.yaml says {self._image_shape}; one of the two is of "
                "another recording"
            )

    def rest(self) -> int:
        """Keep the file open that was read last, without images; see `Rests`."""
        with self._enter():
            self._close_idle(1)
            return sum(lease.file.rest() for lease in self._leases.values())

    def close(self) -> None:
        """Close every file; those that are being read, when their readers are done."""
        with self._enter():
            self._close_idle(0)
            self._leases.clear()
