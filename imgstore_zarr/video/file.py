"""VideoFile: one video file as frames that can be indexed, exact in any order."""

from __future__ import annotations

import os
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.frames import Frames, Positions, Window, output_array, window_shape
from imgstore_zarr.pixels import ensure_gray
from imgstore_zarr.video.decoder import Decoder
from imgstore_zarr.video.packets import PacketTable

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter


class VideoFile:
    """A video file, behind NumPy indexing: ``VideoFile(path).frames[100:200]``.

    The frame at a position is, bit for bit, the one that a decode from the start of the file gives.
    Pixels are those that OpenCV's VideoCapture gives when its ``CAP_PROP_ORIENTATION_AUTO`` is off:
    BGR by swscale (bicubic), gray from that by OpenCV, as they are stored. A rotation that the file
    asks players for (a display matrix) is not applied. Reading is safe from several threads, which
    take turns.

    Parameters
    ----------
    path
        The file.
    color
        Whether images are BGR or gray; None decides by the file's pixel format.
    name
        What messages call it; by default the path.

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
        self, path: str | os.PathLike[str], *, color: bool | None = None, name: str | None = None
    ) -> None:
        self._path = Path(path)
        self._name = name or str(self._path)
        self._wants_color = color
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._decoder: Decoder | None = None
        self._table: PacketTable | None = None
        self._reformatter: VideoReformatter | None = None

    def __getstate__(self) -> tuple[Path, str, bool | None]:
        return self._path, self._name, self._wants_color

    def __setstate__(self, state: tuple[Path, str, bool | None]) -> None:
        self._path, self._name, self._wants_color = state
        self._forget()

    def _opened(self) -> Decoder:
        if self._decoder is None:
            self._decoder = Decoder(str(self._path), self._name, self._table)
            self._table = self._decoder.table
        return self._decoder

    def _enter(self) -> threading.Lock:
        # A forked process must neither share the file's offset nor wait for a thread of its parent.
        if self._process != os.getpid():
            self._forget()
        return self._lock

    @cached_property
    def _facts(self) -> tuple[PacketTable, tuple[int, int], bool]:
        with self._enter():
            decoder = self._opened()
            color = self._wants_color
            if color is None:
                color = not decoder.pixel_format.startswith("gray")
            return decoder.table, decoder.frame_shape, color

    @property
    def table(self) -> PacketTable:
        """The packets of the file."""
        return self._facts[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """(frame, y, x), or (frame, y, x, 3) in colour."""
        table, image, color = self._facts
        return (len(table), *image, 3) if color else (len(table), *image)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8."""
        return np.dtype(np.uint8)

    @property
    def preferred_chunks(self) -> tuple[int, ...]:
        """As many whole images as a GOP usually has."""
        return (self.table.gop, *self.shape[1:])

    @property
    def frames(self) -> Frames:
        """All frames, behind NumPy indexing."""
        return Frames(self)

    def __len__(self) -> int:
        return len(self.table)

    def read(
        self, positions: Positions, window: Window | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read frames; see `FrameSource.read`."""
        out = output_array(window_shape(self.shape, len(positions), window), self.dtype, out)
        cut = window.slices if window else (slice(None), slice(None))
        order = np.argsort(positions, kind="stable")
        unique, starts = np.unique(positions[order], return_index=True)
        places = np.split(order, starts[1:])
        with self._enter():
            decoded = self._opened().frames(unique.tolist())
            for (position, frame), targets in zip(decoded, places, strict=True):
                image = self._image(position, frame)[cut]
                for target in targets:
                    out[target] = image
        return out

    def _image(self, position: int, frame: VideoFrame) -> NDArray[Any]:
        from av.video.reformatter import Interpolation, VideoReformatter

        if (frame.height, frame.width) != self._facts[1]:
            raise CorruptChunkError(
                f"{self._name}: the frame at its position {position} is {frame.height} x "
                f"{frame.width}, those before are {self._facts[1][0]} x {self._facts[1][1]}"
            )
        if self._reformatter is None:
            self._reformatter = VideoReformatter()
        bgr = self._reformatter.reformat(
            frame, format="bgr24", interpolation=Interpolation.BICUBIC, threads=1
        ).to_ndarray()
        return bgr if self._facts[2] else ensure_gray(bgr)

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        with self._enter():
            decoder, self._decoder = self._decoder, None
            if decoder is not None:
                self._table = decoder.table
                decoder.close()
