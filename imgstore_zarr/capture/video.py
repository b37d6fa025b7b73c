"""A video file as a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from imgstore_zarr.capture.source import Captured, CapturedFrames
from imgstore_zarr.plain_video import parts_of_video


class Video:
    """The frames of a video file, with its timestamps as frame times.

    Parameters
    ----------
    path
        Any file that FFmpeg reads, with pixels of 8 bits.
    gray
        Make images gray, as many videos of gray cameras are stored in colour.

    Raises
    ------
    CorruptChunkError, RecordingAccessError, UnsupportedFormatError
        See `imgstore_zarr.video.VideoFile`.
    """

    def __init__(self, path: Path, *, gray: bool) -> None:
        self.name = str(path)
        self._parts = parts_of_video(path, color=False if gray else None)

    @property
    def count(self) -> int:
        """How many frames there are."""
        return len(self._parts.index)

    def frames(self) -> CapturedFrames:
        """Iterate over all frames."""
        images, index = self._parts.frames, self._parts.index
        try:
            for position in range(self.count):
                (image,) = images.read(np.array([position]))
                yield Captured(
                    image, int(index.frame_number[position]), float(index.frame_time[position])
                )
        finally:
            images.close()
