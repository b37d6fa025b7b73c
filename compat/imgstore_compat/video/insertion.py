"""Video files that are to become chunks of a recording."""

from __future__ import annotations

import contextlib
from pathlib import Path

from imgstore_zarr.errors import (
    CorruptChunkError,
    FrameMismatchError,
    InvalidMetadataError,
    UnsupportedFormatError,
)
from imgstore_zarr.recording import RecordingInfo
from imgstore_zarr.storage import Directory
from imgstore_zarr.video import VideoFile, whole_frames


def check_insertable(
    path: Path, info: RecordingInfo, location: Directory, chunk_count: int, frame_count: int
) -> None:
    """Refuse what cannot become a chunk.

    Parameters
    ----------
    path
        The file, without symbolic links.
    info, location
        The recording.
    chunk_count
        Chunks that it has, the open one with them.
    frame_count
        Frames for which there are numbers and times.

    Raises
    ------
    UnsupportedFormatError
        A file with another ending, or without video.
    FrameMismatchError
        Images of another shape.
    InvalidMetadataError
        Not as many frames as `frame_count`, or a file that is a chunk already.
    ChunkMissingError, CorruptChunkError
        The file is missing, damaged or cut off.
    """
    name = f"{location.name}: {path}, to be inserted,"
    extension = "." + info.format.split("/")[1]
    if path.suffix != extension:
        raise UnsupportedFormatError(
            f"{name} does not end in {extension}, as the chunks of this recording do"
        )
    inside = path.parent == location.root.resolve() and path.stem.isdecimal()
    if inside and int(path.stem) < chunk_count:
        raise InvalidMetadataError(f"{name} is a chunk of this recording already")
    with contextlib.closing(VideoFile(path, name=name)) as file:
        shape, frames, is_cut = file.shape[1:3], len(file), bool(file.table.corrupt.any())
    if is_cut:
        raise CorruptChunkError(
            f"{name} is cut off: of {frames} frames {whole_frames(path)} are whole; "
            "nothing was inserted"
        )
    if shape != info.stored_shape[:2]:
        raise FrameMismatchError(
            f"{name} has images of {shape}, the recording of {info.stored_shape[:2]}; nothing was "
            "inserted"
        )
    if frames != frame_count:
        raise InvalidMetadataError(
            f"{name} has {frames} frames, but {frame_count} frame numbers and times were given; "
            "nothing was inserted"
        )
