"""Decoder: one open video file, decoded so that every frame is the one of a decode from the start."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from imgstore_zarr.errors import (
    CorruptChunkError,
)
from imgstore_zarr.video.container import open_container
from imgstore_zarr.video.packets import NO_TIMESTAMP, PacketTable, media_packets, read_packet_table

if TYPE_CHECKING:
    from av.packet import Packet as AnyPacket
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    Packet = AnyPacket[VideoStream]

# How far to decode a file whose timestamps may be in the order of decoding, to find it out.
_PROOF = 64


class Decoder:
    """Decodes the frames of one video file by position; for one thread at a time.

    Parameters
    ----------
    path
        The file.
    name
        What messages call it.
    table
        The packet table of the file, if it was read before.

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

    def __init__(self, path: str, name: str, table: PacketTable | None = None) -> None:
        self.name = name
        self._path = path
        self._packets: Iterator[Packet] = iter(())
        self._ready: deque[tuple[int, VideoFrame]] = deque()
        self._open()
        self.table = table or self._read_table()
        self._damaged = np.zeros(len(self.table.pts), bool)
        self._reason = ""
        self._stand_before(0)
        self._rewind()
        if table is None and self.table.timed and self.table.ascending:
            self._prove_order()
        _living.add(self)

    def _open(self) -> None:
        self._container, self._stream = open_container(self._path, self.name)
        self._context = self._stream.codec_context
        # Threads would not live on in a forked process, and libavcodec would wait for them there.
        self._context.thread_type = "NONE"
        self._context.thread_count = 1
        # Damage must not be concealed.
        self._context.options = {"err_detect": "explode"}

    def _read_table(self) -> PacketTable:
        import av

        try:
            table = read_packet_table(self._container, self._stream)
        except av.FFmpegError as error:
            self.close()
            raise CorruptChunkError(
                f"{self.name} cannot be demuxed ({error.strerror}); it is damaged"
            ) from error
        if not len(table):
            self.close()
            raise CorruptChunkError(f"{self.name} holds a video stream without frames")
        self._container.close()
        self._open()
        return table

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(y, x) of a frame."""
        return self._context.height, self._context.width

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the pixel format."""
        return str(self._context.pix_fmt)

    def _rewind(self) -> None:
        """Stand at the start of a file just opened, and show the decoder its first packet.

        x264 writes its build number there, and the decoder corrects errors of old builds by it.
        """
        import av

        packets = media_packets(self._container, self._stream)
        try:
            first = next(packets, None)
        except av.FFmpegError as error:
            raise self._unreachable(0) from error
        if first is None:
            raise self._unreachable(0)
        self._send(first, 0)
        self._context.flush_buffers()
        self._packets = _chain(first, packets)

    def _prove_order(self) -> None:
        """Decode the start, if the codec may reorder frames though timestamps say it did not.

        A muxer that was not told of presentation times writes those of decoding in their place.
        """
        if not self._context.has_b_frames:
            return
        while self.table.timed and self._next < _PROOF and not self._finished:
            self._advance()
        self._stand_at(0)

    def _stand_before(self, rank: int) -> None:
        self._ready.clear()
        self._next = rank
        self._last = -1
        self._newest = -1
        self._finished = False

    def _stand_at(self, rank: int) -> None:
        """Make `rank` the next packet that is sent."""
        import av

        self._stand_before(rank)
        self._context.flush_buffers()
        for stamp in self._stamps_before(rank):
            try:
                self._container.seek(stamp, stream=self._stream)
                self._packets = media_packets(self._container, self._stream)
                if self._skip_to(rank):
                    return
            except av.FFmpegError:
                continue
        # Not every container can be searched: from the start it can be read again.
        self._container.close()
        self._open()
        self._rewind()
        try:
            there = self._skip_to(rank)
        except av.FFmpegError as error:
            raise self._unreachable(rank) from error
        if not there:
            raise self._unreachable(rank)

    def _unreachable(self, rank: int) -> CorruptChunkError:
        return CorruptChunkError(
            f"{self.name}: packet {rank} cannot be reached again; the file changed or is damaged"
        )

    def _stamps_before(self, rank: int) -> list[int]:
        """Timestamps by which a demuxer may find a packet, or one before it."""
        table = self.table
        stamps = [int(column[i]) for i in (rank, 0) for column in (table.dts, table.pts)]
        return [stamp for stamp in stamps if stamp != NO_TIMESTAMP]

    def _skip_to(self, rank: int) -> bool:
        """Skip packets up to a rank; False where the demuxer stands behind it."""
        for packet in self._packets:
            found = self.table.rank_of(packet)
            if found is None or found > rank:
                return False
            if found == rank:
                self._packets = _chain(packet, self._packets)
                return True
        return False

    def frames(self, positions: list[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Decode frames, each GOP only once and only as far as it is needed.

        Parameters
        ----------
        positions
            Ascending, without repeats.

        Yields
        ------
        position, frame
            One for each position.

        Raises
        ------
        CorruptChunkError
            The frame at a position cannot be decoded as it was encoded.
        """
        for position in positions:
            yield position, self._frame_at(position)

    def _frame_at(self, position: int) -> VideoFrame:
        if not 0 <= position < len(self.table):
            raise CorruptChunkError(
                f"{self.name} holds {len(self.table)} frames, so there is none at its position "
                f"{position}; the file is truncated, or does not belong to its index"
            )
        entry = self._entry(position)
        if position <= self._last or entry > self._next:
            self._stand_at(entry)
        while not self._finished or self._ready:
            while self._ready and self._ready[0][0] < position:
                self._last = self._ready.popleft()[0]
            if self._ready:
                if self._ready[0][0] > position:
                    break
                self._last, frame = self._ready.popleft()
                self._check(position)
                return frame
            timed = self.table.timed
            self._advance()
            if self.table.timed != timed:
                self._stand_at(0)
        self._check(position)
        raise self._undecodable(position, "the decoder gives no frame for it")

    def _entry(self, position: int) -> int:
        """Return where to start for a position; without timestamps frames can only be counted."""
        if not self.table.timed:
            return 0
        return self.table.entry_before(int(self.table.rank_of_position[position]))

    def _check(self, position: int) -> None:
        if self._damaged[self.table.rank_of_position[position]]:
            raise self._undecodable(position, self._reason or "it is damaged")

    def _undecodable(self, position: int, reason: str) -> CorruptChunkError:
        return CorruptChunkError(
            f"{self.name}: the frame at its position {position} cannot be decoded ({reason}); "
            "restore the file from a backup"
        )

    def _advance(self) -> None:
        """Send one more packet, or the end, and collect the frames that come out."""
        import av

        try:
            packet = next(self._packets, None)
        except av.FFmpegError as error:
            self._damage(self._next, str(error.strerror))
            packet = None
        if packet is None:
            self._finished = True
            self._collect(self._send(None, len(self._damaged)))
            return
        rank, self._next = self._next, self._next + 1
        if self.table.corrupt[rank]:
            self._damage(rank, "its data are cut off")
        self._collect(self._send(packet, rank))

    def _send(self, packet: Packet | None, rank: int) -> list[VideoFrame]:
        import av

        try:
            return self._context.decode(packet)
        except av.EOFError:
            return []
        except av.FFmpegError as error:
            self._damage(rank, str(error.strerror))
            return []

    def _damage(self, rank: int, reason: str) -> None:
        """Distrust what is decoded from a packet on, up to the next clean entry."""
        self._reason = reason
        if self.table.timed:
            self._damaged[rank : self.table.entry_after(rank)] = True
        else:
            # A frame that is missing leaves its place, whichever that is, to the next one.
            self._damaged[self.table.rank_of_position[self._newest + 1 :]] = True

    def _collect(self, frames: list[Any]) -> None:
        for frame in frames:
            position = self._position(frame)
            if position is None or position >= len(self.table):
                continue
            if position <= self._newest:
                if not self._damaged[self.table.rank_of_position[position]]:
                    self._distrust_timestamps()
                    return
                continue
            if frame.is_corrupt:
                rank = int(self.table.rank_of_position[position])
                self._damage(rank, "the decoder marks it as corrupt")
            self._newest = position
            self._ready.append((position, frame))

    def _position(self, frame: VideoFrame) -> int | None:
        return self.table.position_of_pts(frame.pts) if self.table.timed else self._newest + 1

    def _distrust_timestamps(self) -> None:
        """Count frames from the start from now on: they do not come in the order of their pts."""
        self.table = dataclasses.replace(self.table, stamped=False)
        self._damaged[:] = False

    def close(self) -> None:
        """Close the file."""
        # What is still to be demuxed or handed out refers to the container, which refers to it.
        self._packets = iter(())
        self._ready.clear()
        self._container.close()


def _chain(first: Packet, rest: Iterator[Packet]) -> Iterator[Packet]:
    yield first
    yield from rest


_living: WeakSet[Decoder] = WeakSet()
# Never freed: closing a decoder touches what only the process that opened it has.
_inherited: list[Decoder] = []


def _keep_inherited() -> None:
    _inherited.extend(_living)
    _living.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)
