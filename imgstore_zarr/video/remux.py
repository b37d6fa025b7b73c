"""What a killed writer left of a video file: how much of it is whole, and an ordinary copy of that."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np

from imgstore_zarr.errors import (
    ChunkMissingError,
    CorruptChunkError,
    UnsupportedFormatError,
)
from imgstore_zarr.video.container import open_video
from imgstore_zarr.video.file import VideoFile
from imgstore_zarr.video.media import LocalMedia, Media


def whole_frames(source: str | os.PathLike[str] | Media, *, decode: bool = False) -> int:
    """Return how many frames at the start of a file are whole.

    Only for files of which the frames are in the order in which they are decoded, as
    `VideoEncoder` writes them.

    Parameters
    ----------
    source
        The file, by its path or as a medium.
    decode
        Whether the frames of the last GOP are also decoded: not only the end may be missing after a
        loss of power.

    Returns
    -------
    int
        0 where there is no such file, or nothing in it can be read.
    """
    file = VideoFile(source)
    try:
        table = file.table
        count = int(np.argmax(table.corrupt)) if table.corrupt.any() else len(table)
        return _decodable(file, count) if decode and count else count
    except (ChunkMissingError, CorruptChunkError, UnsupportedFormatError):
        return 0
    finally:
        file.close()


def _decodable(file: VideoFile, count: int) -> int:
    """How many of the first frames are left when the last GOP is decoded up to where it fails."""
    for position in range(file.table.entry_before(count - 1), count):
        try:
            file.read(np.array([position], np.int64))
        except CorruptChunkError:
            return position
    return count


def copy_frames(source: Path, target: Path, count: int) -> None:
    """Copy the first frames of a file, as they are encoded, to one that is written in one go.

    Parameters
    ----------
    source, target
        The files; the ending of the target says its container.
    count
        How many frames; so many must be whole.
    """
    import av

    video = open_video(LocalMedia(source), str(source))
    with video.container, av.open(str(target), "w") as output:
        copy = output.add_stream_from_template(video.stream)
        copy.time_base = video.stream.time_base
        for packet in itertools.islice(video.packets(), count):
            packet.stream = copy
            output.mux(packet)
