"""Opening video files, and what their own lists of packets say without reading the media."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from imgstore_zarr.errors import (
    ChunkMissingError,
    CorruptChunkError,
    RecordingAccessError,
    UnsupportedFormatError,
)
from imgstore_zarr.video.atoms import cut_fragment
from imgstore_zarr.video.completeness import breaks_off

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

# Containers that list every packet, not only key frames: ISO 14496-12 (stsz), AVI (idx1).
_LISTING = ("mov", "avi")


def open_container(path: str, name: str) -> tuple[InputContainer, VideoStream]:
    """Open a file and its first video stream; errors as those of `VideoFile`."""
    import av

    try:
        container = _open(path)
    except FileNotFoundError as error:
        raise ChunkMissingError(f"{name} is missing; restore it from a backup") from error
    except PermissionError as error:
        raise RecordingAccessError(f"{name} may not be read by this process") from error
    except IsADirectoryError as error:
        raise CorruptChunkError(f"{name} is a directory, not a video file") from error
    except (OSError, av.FFmpegError) as error:
        # Others say nothing about the file: there may be too many open ones. EIO is what Matroska
        # gives for a header that breaks off.
        if isinstance(error, OSError) and error.errno != errno.EIO:
            raise OSError(error.errno, f"{name} cannot be opened: {error.strerror}") from error
        raise CorruptChunkError(
            f"{name} cannot be opened as a video ({error.strerror}); it is damaged, "
            "or was not closed by its writer"
        ) from error
    if not container.streams.video:
        container.close()
        if breaks_off(Path(path), container.format.name):
            raise CorruptChunkError(f"{name} breaks off before its video; restore it from a backup")
        raise UnsupportedFormatError(f"{name} holds no video stream")
    stream = container.streams.video[0]
    # PyAV gives none where FFmpeg has no decoder, whatever its types say.
    if cast("VideoCodecContext | None", stream.codec_context) is None:
        description = _describe(container)
        container.close()
        raise UnsupportedFormatError(f"{name}: FFmpeg has no decoder for its codec ({description})")
    return container, stream


def _open(path: str) -> InputContainer:
    import av

    try:
        return av.open(path, metadata_errors="replace")
    except (av.InvalidDataError, av.EOFError):
        end = cut_fragment(path)
        # Where nothing is cut off, somebody has written on in the meantime.
        part = path if end is None else f"subfile,,start,0,end,{end},,:{path}"
        return av.open(part, metadata_errors="replace")


def _describe(container: InputContainer) -> str:
    """Return what FFmpeg says about the first video stream; PyAV gets it from the log alone."""
    import av

    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        text = str(cast("Any", container).dumps_format())
    finally:
        av.logging.set_level(level)
    return text.partition("Video: ")[2].partition("\n")[0]


def listed_frames(path: str | os.PathLike[str], name: str) -> int | None:
    """Return how many packets a file lists, without reading its media.

    Parameters
    ----------
    path
        The file.
    name
        What messages call it.

    Returns
    -------
    int or None
        None for containers that list only key frames (Matroska), or nothing.

    Raises
    ------
    CorruptChunkError
        It cannot be opened, or ends before the last packet that it lists.
    ChunkMissingError, RecordingAccessError, UnsupportedFormatError
        As for `VideoFile`.
    """
    container, stream = open_container(os.fspath(path), name)
    with container:
        entries = stream.index_entries
        if not container.format.name.startswith(_LISTING) or not len(entries):
            return None
        end, size = entries[-1].pos + entries[-1].size, Path(path).stat().st_size
        if end > size:
            raise CorruptChunkError(
                f"{name} is cut off: it has {size} bytes, and lists frames up to byte {end}"
            )
        return len(entries)
