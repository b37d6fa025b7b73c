"""Cutting: frames of video files as one mp4 file, as they are encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.video.container import OpenVideo, open_video
from imgstore_zarr.video.file import VideoFile
from imgstore_zarr.video.media import Media
from imgstore_zarr.video.packets import NO_TIMESTAMP, PacketTable

if TYPE_CHECKING:
    from av.packet import Packet as AnyPacket
    from av.video.stream import VideoStream

    Packet = AnyPacket[VideoStream]

# What players expect in an mp4 file, and containers whose packets have all that it needs.
_CODECS = ("h264", "hevc", "av1", "mpeg4", "vp9")
_CONTAINERS = ("mov", "matroska")


@dataclass(frozen=True)
class Cut:
    """Frames of one video file that follow each other.

    Attributes
    ----------
    media, name
        The file, and what messages call it.
    start, stop
        Positions in the file, as a half-open range.
    first
        The position in the recording of the file's first frame.
    """

    media: Media
    name: str
    start: int
    stop: int
    first: int


@runtime_checkable
class HasVideo(Protocol):
    """A source whose frames lie in video files."""

    def cuts(self, start: int, stop: int) -> list[Cut]:
        """Return where the frames start .. stop-1 lie, in their order."""
        ...


@dataclass(frozen=True)
class _Piece:
    """A cut, as packets start .. stop-1 in the order in which they are decoded."""

    cut: Cut
    table: PacketTable
    start: int
    stop: int
    shift: int
    """What is added to timestamps."""


def copy_cuts(cuts: Sequence[Cut], target: Path, image_shape: tuple[int, ...]) -> str | None:
    """Copy frames to an mp4 file, as they are encoded: its frames decode to the same pixels.

    Nothing is decoded, so that damage within a frame is copied too.

    Parameters
    ----------
    cuts
        At least one.
    target
        The file.
    image_shape
        (y, x[, channel]) that the frames have.

    Returns
    -------
    str or None
        Why that cannot be done, and nothing was written; None where it was.
    """
    import av

    pieces = _pieces(cuts, image_shape)
    if isinstance(pieces, str):
        return pieces
    # The list of packets comes first, as pages of the web want it.
    with av.open(str(target), "w", options={"movflags": "faststart"}) as output:
        copy: VideoStream | None = None
        for piece in pieces:
            video = open_video(piece.cut.media, piece.cut.name)
            with video.container:
                if copy is None:
                    copy = output.add_stream_from_template(video.stream)
                    copy.time_base = video.stream.time_base
                for packet in _packets(piece, video):
                    packet.pts, packet.dts = (
                        None if stamp is None else stamp + piece.shift
                        for stamp in (packet.pts, packet.dts)
                    )
                    packet.stream = copy
                    output.mux(packet)
    return None


@dataclass(frozen=True)
class _Facts:
    """What files must have in common to become one stream, and how long a frame lasts."""

    common: tuple[Any, ...]
    codec: str
    container: str
    pixel_format: str
    image_shape: tuple[int, int]
    duration: float | None
    """In the time base; None where it is not known."""


def _facts(cut: Cut) -> _Facts:
    video = open_video(cut.media, cut.name)
    with video.container as container:
        stream, context = video.stream, video.stream.codec_context
        rate, base = stream.average_rate, stream.time_base
        return _Facts(
            (context.name, context.extradata, base),
            context.codec.canonical_name,
            container.format.name,
            str(context.pix_fmt),
            (stream.height, stream.width),
            float(1 / (rate * base)) if rate and base else None,
        )


def _obstacle(first: _Facts, facts: _Facts, cut: Cut, image_shape: tuple[int, ...]) -> str | None:
    """Why a file cannot go on in the stream that another one begins."""
    if not any(name in facts.container for name in _CONTAINERS):
        return f"{cut.name} is a file of the kind {facts.container}"
    if facts.codec not in _CODECS:
        return f"{facts.codec} is not what players expect in an mp4 file"
    if facts.image_shape != image_shape[:2]:
        return f"{cut.name} has images of another size"
    if (facts.common, *facts.image_shape, facts.pixel_format) != (
        first.common,
        *first.image_shape,
        first.pixel_format,
    ):
        return f"{cut.name} is encoded differently from the one before"
    # Old builds of x264 are decoded in another way here, and only the first packet names them.
    if cut.start and facts.codec == "h264" and "444" in facts.pixel_format:
        return f"how {cut.name} is to be decoded stands in its first frame"
    return None


def _pieces(cuts: Sequence[Cut], image_shape: tuple[int, ...]) -> list[_Piece] | str:
    """The packets of cuts, or why they cannot be copied."""
    pieces: list[_Piece] = []
    first = _facts(cuts[0])
    # Where the next piece begins, and when the last packet before it is decoded.
    at, decoded = 0, None
    for cut in cuts:
        facts = _facts(cut)
        table = _table(cut)
        obstacle = _obstacle(first, facts, cut, image_shape) or _not_whole(cut, table)
        if obstacle:
            return obstacle
        ranks = table.rank_of_position[cut.start : cut.stop]
        piece = _Piece(
            cut,
            table,
            int(ranks.min()),
            int(ranks.max()) + 1,
            at - int(table.frame_pts[cut.start]),
        )
        if decoded is not None and int(table.dts[piece.start]) + piece.shift <= decoded:
            return f"{cut.name} does not follow the one before in time"
        pieces.append(piece)
        at = int(table.frame_pts[cut.stop - 1]) + _duration(table, facts) + piece.shift
        decoded = int(table.dts[piece.stop - 1]) + piece.shift
    return pieces


def _not_whole(cut: Cut, table: PacketTable) -> str | None:
    """Why frames are not some packets that follow each other, decoded by themselves."""
    if not table.timed:
        return f"{cut.name} does not say when its frames are shown"
    if cut.stop > len(table):
        return f"{cut.name} has {len(table)} frames"
    ranks = table.rank_of_position[cut.start : cut.stop]
    part = slice(int(ranks.min()), int(ranks.max()) + 1)
    entry = table.entry_before(part.start)
    if entry != part.start:
        begin = cut.first + table.first_position(entry)
        return (
            f"position {cut.first + cut.start} is decoded from position {begin} on, which is where a "
            "copy could begin"
        )
    if part.stop - part.start != len(ranks):
        last = cut.first + cut.stop - 1
        return f"position {last} is decoded from a frame that is shown later"
    if table.corrupt[part].any() or bool((table.dts[part] == NO_TIMESTAMP).any()):
        return f"{cut.name} is damaged, or does not say when its frames are decoded"
    return None


def _table(cut: Cut) -> PacketTable:
    file = VideoFile(cut.media, name=cut.name, first=cut.first)
    try:
        return file.table
    finally:
        file.close()


def _duration(table: PacketTable, facts: _Facts) -> int:
    """How long a frame is shown, in the time base."""
    if len(table) > 1:
        return max(int(np.median(np.diff(table.frame_pts))), 1)
    return max(round(facts.duration or 1), 1)


def _packets(piece: _Piece, video: OpenVideo) -> Iterator[Packet]:
    """Iterate over the packets of a piece."""
    import av

    rank, trouble = piece.start, "it was changed meanwhile, so try once more"
    try:
        if rank:
            video.seek(int(piece.table.dts[rank]))
        for packet in video.packets():
            if rank == piece.stop:
                return
            if piece.table.is_at(packet, rank):
                yield packet
                rank += 1
    except av.FFmpegError as error:
        trouble = f"{error.strerror}; restore it from a backup"
    if rank < piece.stop:
        position = piece.cut.first + piece.table.first_position(rank)
        raise CorruptChunkError(
            f"{piece.cut.name}: the frame at position {position} cannot be copied: {trouble}"
        )
