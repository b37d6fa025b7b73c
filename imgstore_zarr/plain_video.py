"""A video file that is no recording, as the parts of one: numbers count from 0, times are timestamps."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imgstore_zarr.errors import UnsupportedFormatError
from imgstore_zarr.extra import EXTRA_DATA_FILE_EXTENSIONS
from imgstore_zarr.index import Float64s, FrameIndex
from imgstore_zarr.layouts import Parts
from imgstore_zarr.recording import RecordingInfo, local_timezone
from imgstore_zarr.video import VideoFile

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class _NoExtra:
    """A video file has no extra data."""

    def exists(self) -> bool:
        """There is none."""
        return False

    def files(self, extensions: Sequence[str] = EXTRA_DATA_FILE_EXTENSIONS) -> list[str]:  # noqa: ARG002
        """There are none."""
        return []

    def read(self, ignore_corrupt_chunks: bool = False) -> pd.DataFrame | None:  # noqa: ARG002
        """There is none."""
        return None

    def samplerate(self) -> float | None:
        """There is none."""
        return None


def parts_of_video(path: Path, *, color: bool | None = None) -> Parts:
    """Return a video file as the parts of a recording.

    Parameters
    ----------
    path
        Any file that FFmpeg reads.
    color
        See `VideoFile`.

    Returns
    -------
    Parts
        Frame numbers 0, 1, ...; frame times in seconds, as the file gives them, or by its frame rate
        where it has none; made when the file says so, else when it was last modified.

    Raises
    ------
    ChunkMissingError, CorruptChunkError, RecordingAccessError, UnsupportedFormatError
        See `VideoFile`. The last one also for pixels of more than 8 bits, of which it would keep 8.
    """
    video = VideoFile(path, color=color)
    count = len(video)
    shape = video.shape[1:]
    times, codec, created = _facts(path, video)
    info = RecordingInfo(
        name=str(path),
        layout="file",
        format=f"{codec}/{path.suffix.lstrip('.') or 'video'}",
        imgshape=shape,
        stored_shape=shape,
        imgdtype=np.dtype(np.uint8),
        encoding=None,
        chunksize=max(count, 1),
        created=created,
        timezone=local_timezone(),
        uuid=None,
        user_metadata={},
        lossless=False,
    )
    index = FrameIndex(np.arange(count, dtype=np.int64), times, [0])
    return Parts(info, index, video, _NoExtra())


def _facts(path: Path, video: VideoFile) -> tuple[Float64s, str, dt.datetime]:
    """The times of the frames, the codec, and when the file was made."""
    import av

    table = video.table
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        rate, base = stream.average_rate, stream.time_base
        codec = stream.codec_context.name
        pixels = stream.format
        bits = max((component.bits for component in pixels.components), default=8)
        if bits > 8:
            raise UnsupportedFormatError(
                f"{path} has pixels of {bits} bits ({pixels.name}), of which 8 would be kept; where 8 "
                "are enough, let ffmpeg make such a file: "
                "ffmpeg -i FILE -pix_fmt gray -c:v ffv1 8-bit.mkv"
            )
        made = container.metadata.get("creation_time", "")
    if table.timed and base is not None:
        # Exact: one division of integers each, as FFmpeg does it.
        times = table.frame_pts * base.numerator / base.denominator
    else:
        times = np.arange(len(table)) / float(rate or 25)
    try:
        created = dt.datetime.fromisoformat(made)
    except ValueError:
        created = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
    if created.tzinfo is None:
        created = created.replace(tzinfo=dt.UTC)
    return times, codec, created.astimezone(dt.UTC)
