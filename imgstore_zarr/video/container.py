"""Opening video files, and what their own lists of packets say without reading the media."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from imgstore_zarr.errors import (
    ChunkMissingError,
    CorruptChunkError,
    ImgStoreError,
    RecordingAccessError,
    UnsupportedFormatError,
)
from imgstore_zarr.video.atoms import cut_fragment
from imgstore_zarr.video.completeness import breaks_off
from imgstore_zarr.video.media import Input, Media, as_media
from imgstore_zarr.video.packets import media_packets

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet as AnyPacket
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

    Packet = AnyPacket[VideoStream]

# Containers that list every packet, not only key frames: ISO 14496-12 (stsz), AVI (idx1).
_LISTING = ("mov", "avi")


@dataclass(frozen=True)
class OpenVideo:
    """A file that FFmpeg has open, and its first video stream.

    Attributes
    ----------
    container, stream
        What PyAV gives.
    input
        What FFmpeg reads from.
    """

    container: InputContainer
    stream: VideoStream
    input: Input

    def packets(self) -> Iterator[Packet]:
        """Iterate over the packets from where the demuxer stands; see `media_packets`.

        Raises
        ------
        RecordingAccessError, ChunkMissingError, CorruptChunkError
            What a remote medium raised.
        """
        packets = media_packets(self.container, self.stream)
        return packets if isinstance(self.input.target, str) else self._checked(packets)

    def _checked(self, packets: Iterator[Packet]) -> Iterator[Packet]:
        import av

        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                self.input.check()
                raise
            self.input.check()
            if packet is None:
                return
            yield packet

    def seek(self, stamp: int) -> None:
        """Stand at the last key packet before a timestamp; FFmpeg's error where there is none."""
        import av

        try:
            self.container.seek(stamp, stream=self.stream)
        except av.FFmpegError:
            self.input.check()
            raise
        self.input.check()

    def close(self) -> None:
        """Close the file."""
        self.container.close()


def open_video(media: Media, name: str) -> OpenVideo:
    """Open a file and its first video stream; errors as those of `VideoFile`."""
    import av

    try:
        media.learn_headers()
        container, given = _open(media)
    except ImgStoreError:
        raise  # of a remote medium, which says everything
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
        if breaks_off(media, container.format.name):
            raise CorruptChunkError(f"{name} breaks off before its video; restore it from a backup")
        raise UnsupportedFormatError(f"{name} holds no video stream")
    stream = container.streams.video[0]
    # PyAV gives none where FFmpeg has no decoder, whatever its types say.
    if cast("VideoCodecContext | None", stream.codec_context) is None:
        description = _describe(container)
        container.close()
        raise UnsupportedFormatError(f"{name}: FFmpeg has no decoder for its codec ({description})")
    return OpenVideo(container, stream, given)


def _open(media: Media) -> tuple[InputContainer, Input]:
    import av

    try:
        return _opened(media.input())
    except (av.InvalidDataError, av.EOFError):
        with media.open() as file:
            end = cut_fragment(file)
        # Where nothing is cut off, somebody has written on in the meantime.
        return _opened(media.input(end))


def _opened(given: Input) -> tuple[InputContainer, Input]:
    import av

    try:
        container = av.open(given.target, mode="r", metadata_errors="replace")
    except av.FFmpegError:
        given.check()
        raise
    if given.failed:
        container.close()
    given.check()
    return container, given


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


def listed_frames(source: str | os.PathLike[str] | Media, name: str) -> int | None:
    """Return how many packets a file lists, without reading its media.

    Parameters
    ----------
    source
        The file, by its path or as a medium.
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
    media = as_media(source)
    video = open_video(media, name)
    with video.container as container:
        entries = video.stream.index_entries
        if not container.format.name.startswith(_LISTING) or not len(entries):
            return None
        end, size = entries[-1].pos + entries[-1].size, media.size
        if end > size:
            raise CorruptChunkError(
                f"{name} is cut off: it has {size} bytes, and lists frames up to byte {end}"
            )
        return len(entries)
