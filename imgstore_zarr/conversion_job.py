"""What a conversion does to one chunk: read the frames of the source, and write a part; picklable."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.cores import in_order
from imgstore_zarr.errors import ImgStoreError
from imgstore_zarr.frames import FrameSource, Window
from imgstore_zarr.index import Float64s, Int64s
from imgstore_zarr.layouts import JoinsChunks, Layout
from imgstore_zarr.pixels import Conversion
from imgstore_zarr.recording import RecordingInfo, RecordingSpec
from imgstore_zarr.shared_sources import SharedSource
from imgstore_zarr.storage import Directory, Location, access_error

BLOCK_BYTES = 16 * 2**20
"""How much each thread reads at once; or a GOP, where that is at most twice as much."""


@dataclass(frozen=True)
class SourceFrames:
    """Some frames of the source, in the order in which they are written.

    Attributes
    ----------
    first
        The position of the first of them in the destination.
    positions
        int64 (n,) in the source.
    frame_number, frame_time
        int64 and float64 (n,).
    """

    first: int
    positions: Int64s
    frame_number: Int64s
    frame_time: Float64s

    def __len__(self) -> int:
        return len(self.positions)

    def part(self, start: int, stop: int) -> SourceFrames:
        """Return those at some positions of the destination."""
        cut = slice(start - self.first, stop - self.first)
        columns = (self.positions[cut], self.frame_number[cut], self.frame_time[cut])
        return SourceFrames(start, *columns)


@dataclass(frozen=True)
class DoneChunk:
    """A chunk that is in its place.

    Attributes
    ----------
    number
        Of the chunk.
    frames
        How many it has.
    checksum
        CRC-32C of their pixels as they were read from the source, one frame after the other.
    """

    number: int
    frames: int
    checksum: int


@dataclass(frozen=True)
class Part(Directory):
    """Where a part is written, which nobody knows by its path.

    Attributes
    ----------
    told
        What it is called in messages.
    """

    told: str

    @property
    def name(self) -> str:
        """For messages."""
        return self.told


@dataclass(frozen=True)
class Job:
    """Everything that a worker must know to write chunks of the destination.

    Attributes
    ----------
    source
        Gives images as they are handed to the writer.
    window
        The part of each image that is wanted.
    layout, location, spec
        The destination.
    spool
        Where parts are written; on the file system of the destination if that is local.
    chunksize
        Frames in a chunk.
    """

    source: SharedSource
    window: Window | None
    layout: Layout
    location: Location
    spec: RecordingSpec
    spool: Path
    chunksize: int

    def write(self, frames: SourceFrames) -> Iterator[DoneChunk]:
        """Write neighbouring chunks, one after the other, reading ahead on all cores.

        Parameters
        ----------
        frames
            Of whole chunks; only the last one of the recording may have fewer.
        """
        images = self._images(frames)
        for start in range(frames.first, frames.first + len(frames), self.chunksize):
            stop = min(start + self.chunksize, frames.first + len(frames))
            yield self._write_chunk(frames.part(start, stop), images)

    def _write_chunk(self, frames: SourceFrames, images: Iterator[NDArray[Any]]) -> DoneChunk:
        from crc32c import crc32c

        assert isinstance(self.layout, JoinsChunks)
        chunk = frames.first // self.chunksize
        if not self.spool.exists():
            # Of a worker that nobody waits for any more.
            raise ImgStoreError(f"the conversion to {self.location.name} was given up")
        part, what = self.spool / f"{chunk:06d}", f"chunk {chunk}"
        told = f"{self.location.name}, {what} (positions counted within it)"
        with writing(self.location, what):
            shutil.rmtree(part, ignore_errors=True)
            sink = self.layout.create(Part(part, told), self.spec)
        conversion = stored_conversion(self.spec, sink.info)
        checksum = 0
        try:
            numbers, times = frames.frame_number.tolist(), frames.frame_time.tolist()
            for number, time in zip(numbers, times, strict=True):
                image = next(images)
                checksum = crc32c(np.ascontiguousarray(image).data.cast("B"), checksum)
                with writing(self.location, what):
                    sink.append(conversion.apply(image), number, time)
        except BaseException:
            with contextlib.suppress(ImgStoreError, OSError):  # the first error counts
                sink.close()
            raise
        with writing(self.location, what):
            sink.close()
            self.layout.take_chunk(self.location, self.spec, part, chunk)
            shutil.rmtree(part)
        return DoneChunk(chunk, len(frames), checksum)

    def _images(self, frames: SourceFrames) -> Iterator[NDArray[Any]]:
        source = self.source.source
        for block in in_order(self._read, blocks(source, frames.positions)):
            yield from block

    def _read(self, positions: Int64s) -> NDArray[Any]:
        return self.source.source.read(positions, self.window)


@contextmanager
def writing(location: Location, what: str) -> Iterator[None]:
    """Let an error of the storage name the destination.

    Raises
    ------
    RecordingAccessError
        In place of an OSError that does not say which recording is concerned.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, ImgStoreError):
            raise
        kept = "what is finished is kept, and the same call goes on after it"
        raise access_error(location, f"writing {what}", error, kept) from error


def stored_conversion(spec: RecordingSpec, stored: RecordingInfo) -> Conversion:
    """The step from images as they are given to those that a recording stores; see `ImgStoreWriter`."""
    encoding = spec.encoding if stored.encoding is None else None
    return Conversion.between(spec.imgshape, stored.stored_shape, encoding)


def blocks(source: FrameSource, positions: Int64s) -> Iterator[Int64s]:
    """Cut positions into what is read at once; where they follow each other, at whole GOPs."""
    frame_bytes = max(1, prod(source.shape[1:]) * source.dtype.itemsize)
    most = max(1, BLOCK_BYTES // frame_bytes)
    unit = source.preferred_chunks[0]
    if 1 < unit <= 2 * most:
        most = max(most // unit, 1) * unit
        bounds = np.flatnonzero(np.diff(positions // most)) + 1
    else:
        bounds = np.arange(most, len(positions), most)
    yield from np.split(positions, bounds)
