"""VideoFile: one video file as frames that can be indexed, exact in any order."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.cores import usable_cores
from imgstore_zarr.frames import Frames, Positions, Window, output_array, window_shape
from imgstore_zarr.index import Int64s
from imgstore_zarr.video.batch import Batch
from imgstore_zarr.video.decoder_pool import DecoderPool, VideoSource
from imgstore_zarr.video.media import Media, as_media
from imgstore_zarr.video.packets import PacketTable
from imgstore_zarr.video.read_ahead import Steps


class VideoFile:
    """A video file, behind NumPy indexing: ``VideoFile(path).frames[100:200]``.

    The frame at a position is, bit for bit, the one that a decode from the start of the file gives.
    Pixels are those that OpenCV's VideoCapture gives when its ``CAP_PROP_ORIENTATION_AUTO`` is off:
    BGR by swscale (bicubic), gray from that by OpenCV, as they are stored. A rotation that the file
    asks players for (a display matrix) is not applied.

    Reading is safe from several threads, which read side by side. Whoever reads, the file is open at
    most ``1 + LANES`` times, and holds in memory

    - for each time the frames to which its codec refers (at most 16) and those that threads work on (at
      most 8),
    - `AHEAD_BYTES` of images that are decoded ahead while somebody steps through it,
    - its part of the `CACHE_BYTES` that frames which were decoded on the way to others take in all files
      of the process.

    None of this grows with the length of a GOP; with that of the file only the packet table does (52
    bytes a frame). `rest` leaves one open file and no images.

    Parameters
    ----------
    source
        The file, by its path or as a medium.
    color
        Whether images are BGR or gray; None decides by the file's pixel format.
    name
        What messages call it; by default the path, or the name of the medium.
    first
        What messages call the position of its first frame: that in the recording.

    Raises
    ------
    ChunkMissingError
        There is no such file.
    CorruptChunkError
        It is no video, or damaged at its start.
    RecordingAccessError
        This process may not read it.
    UnsupportedFormatError
        It holds no video stream, or one of a codec that is not known.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Media,
        *,
        color: bool | None = None,
        name: str | None = None,
        first: int = 0,
    ) -> None:
        media = as_media(source)
        self._source = VideoSource(media, name or media.name, color, first)
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._pool = DecoderPool(self._source)
        self._steps = Steps(self._pool)
        # Last: who sees it finds the new ones.
        self._process = os.getpid()

    def __getstate__(self) -> VideoSource:
        return self._source

    def __setstate__(self, state: VideoSource) -> None:
        self._source = state
        self._start_afresh()

    def _enter(self) -> DecoderPool:
        # A forked process must neither share the file's offset nor wait for a thread of its parent.
        if self._process != os.getpid():
            self._start_afresh()
        return self._pool

    @property
    def table(self) -> PacketTable:
        """The packets of the file."""
        return self._enter().facts.table

    @property
    def shape(self) -> tuple[int, ...]:
        """(frame, y, x), or (frame, y, x, 3) in colour."""
        facts = self._enter().facts
        return (len(facts.table), *facts.image_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8."""
        return np.dtype(np.uint8)

    @property
    def preferred_chunks(self) -> tuple[int, ...]:
        """As many whole images as a GOP usually has."""
        return (self.table.gop, *self.shape[1:])

    def boundaries(self, start: int = 0, stop: int | None = None) -> Int64s:
        """Return the positions at which a GOP begins; see `Frames.boundaries`."""
        table = self.table
        start, stop, _ = slice(start, stop).indices(len(table))
        places = np.unique([0, *map(table.first_position, table.likely_entries.tolist())])
        return places[(start <= places) & (places < stop)]

    @property
    def frames(self) -> Frames:
        """All frames, behind NumPy indexing."""
        return Frames(self)

    def __len__(self) -> int:
        return len(self.table)

    def read(
        self, positions: Positions, window: Window | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read frames; see `FrameSource.read`. Each GOP is decoded once."""
        pool = self._enter()
        pool.wake()
        if out is not None:
            output_array(window_shape(self.shape, len(positions), window), self.dtype, out)
        if len(positions) == 1 and usable_cores() > 1:
            image = self._steps.take(int(positions[0]), window)
            if image is not None:
                if out is None:
                    return image[None]
                out[0] = image
                return out
        out = output_array(window_shape(self.shape, len(positions), window), self.dtype, out)
        cut = window.slices if window else (slice(None), slice(None))
        Batch(positions, cut, out).read(pool, self.table)
        return out

    def rest(self) -> int:
        """Keep only what is needed to read on: one open file, and no images.

        Returns
        -------
        int
            About how much memory that takes, in bytes.
        """
        pool = self._enter()
        self._steps.rest()
        return pool.rest()

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        pool = self._enter()
        self._steps.rest()
        pool.close()
