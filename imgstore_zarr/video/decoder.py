"""Decoder: one open video file, decoded so that every frame is the one of a decode from the start."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.video.codec_threads import use_threads
from imgstore_zarr.video.container import open_video
from imgstore_zarr.video.frame_errors import beyond_end, of_another_format, undecodable
from imgstore_zarr.video.media import Media
from imgstore_zarr.video.open_decoders import frame_cache, let_go, register
from imgstore_zarr.video.packet_checks import has_good_slices
from imgstore_zarr.video.packet_reading import demuxed_table, listed_table
from imgstore_zarr.video.packets import MAX_REORDERED, NO_TIMESTAMP, PacketTable

if TYPE_CHECKING:
    from av.packet import Packet as AnyPacket
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    Packet = AnyPacket[VideoStream]


# How much of a file is decoded to find out the order of its frames.
_PROOF = 64


class _IrregularError(Exception):
    """Something is not as in a sound file; one thread, step by step, can tell what it is."""


class _UnlistedError(_IrregularError):
    """A packet is not where the file says."""


class _UnreachableError(Exception):
    """A packet cannot be demuxed again."""


class Decoder:
    """Decodes the frames of one video file by position; for one thread at a time.

    As long as everything is regular, that is every packet where the table says, and every frame whole
    and behind the one before it, several threads may decode. At the first irregularity the decoder
    becomes careful for good: one thread, which knows for every packet what became of it.

    Parameters
    ----------
    media
        The file.
    name
        What messages call it.
    table
        The packet table of the file, if it was read before.
    threads
        How many threads may decode; 1 is for decoders that work side by side.
    first
        What messages call the position of the first frame.
    identity
        That of the file, if it was opened before.

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
        media: Media,
        name: str,
        table: PacketTable | None = None,
        threads: int = 1,
        first: int = 0,
        identity: Hashable = None,
    ) -> None:
        self.name = name
        self.identity = identity
        self._first = first
        self._handles: list[Any] = []
        self._number = register(self, self._handles)
        self._media = media
        self._threads = threads
        self._careful = self._suspect = False
        self._packets: Iterator[Packet] = iter(())
        self._ready: deque[tuple[int, VideoFrame]] = deque()
        self._open()
        self.pixel_format = str(self._context.pix_fmt)
        self.frame_shape = self._context.height, self._context.width
        self.table = table or self._read_table()
        self._damaged = np.zeros(len(self.table.pts), bool)
        self._reason = ""
        self._frame_bytes = 0
        self._has_checksums = False
        if not self.table.timed:
            self._be_careful()
            return
        self._rewind()
        if table is None and self._context.has_b_frames and self.table.ascending:
            self._prove_beginning()

    def _open(self) -> None:
        self._video = open_video(self._media, self.name)
        identity = self._media.identity
        if self.identity not in (None, identity):
            self._video.close()
            raise CorruptChunkError(
                f"{self.name} was replaced by another file while it was open; open it again"
            )
        self.identity = identity
        self._context = self._video.stream.codec_context
        self._handles[:] = self._context, self._video.container
        use_threads(self._context, 1 if self._careful else self._threads)

    def _read_table(self) -> PacketTable:
        import av

        try:
            table = listed_table(self._media, self._video)
            if table is None:
                self._reopen()
                table = demuxed_table(self._media, self._video)
        except av.FFmpegError as error:
            self.close()
            raise CorruptChunkError(
                f"{self.name} cannot be demuxed ({error.strerror}); it is damaged"
            ) from error
        if not len(table):
            self.close()
            raise CorruptChunkError(f"{self.name} holds a video stream without frames")
        self._media.learn(table, self._video.container.format.name)
        self._reopen()
        return table

    def _reopen(self) -> None:
        self.close()
        self._open()

    def _rewind(self) -> None:
        """Stand at the start of a file just opened, and show the decoder its first packet.

        x264 writes its build number there, and the decoder corrects errors of old builds by it.
        """
        import av

        self._stand_before(0)
        packets = self._video.packets()
        begin: list[Packet] = []
        has_slices = self._context.name == "ffv1"
        with contextlib.suppress(av.FFmpegError):
            begin += itertools.islice(packets, 3 if has_slices else 1)
        if not begin:
            raise CorruptChunkError(
                f"{self.name}: its first frame is not there any more; the file changed"
            )
        # Whether the first few have good ones tells whether the file has any.
        self._has_checksums = has_slices and any(map(has_good_slices, begin))
        # Damage shows again when the packet is decoded for its frame.
        with contextlib.suppress(av.FFmpegError):
            self._context.decode(begin[0])
        self._context.flush_buffers()
        self._packets = itertools.chain(begin, packets)

    def _stand_before(self, rank: int) -> None:
        self._ready.clear()
        self._next = rank
        self._newest = self.table.first_position(rank) - 1
        self._finished = self._hurt = self._drained = False

    def _stand_at(self, rank: int) -> None:
        """Make `rank` the next packet that is sent."""
        import av

        self._stand_before(rank)
        self._context.flush_buffers()
        for stamp in self._stamps_before(rank):
            try:
                self._video.seek(stamp)
                self._packets = self._video.packets()
                if self._skip_to(rank):
                    return
            except av.FFmpegError:
                continue
        # Not every container can be searched: from the start it can be read again.
        self._reopen()
        self._rewind()
        self._stand_before(rank)
        with contextlib.suppress(av.FFmpegError):
            if self._skip_to(rank):
                return
        raise _UnreachableError

    def _stamps_before(self, rank: int) -> list[int]:
        """Timestamps by which a demuxer may find a packet, or one before it."""
        table = self.table
        stamps = [int(column[i]) for i in (rank, 0) for column in (table.pts, table.dts)]
        return [stamp for stamp in stamps if stamp != NO_TIMESTAMP]

    def _skip_to(self, rank: int) -> bool:
        """Skip packets up to a rank; False where the demuxer stands behind it."""
        for packet in self._packets:
            if self.table.is_at(packet, rank):
                self._packets = itertools.chain([packet], self._packets)
                return True
            found = self.table.rank_of(packet)
            if found is None and self.table.listed:
                raise _UnlistedError
            if found is None or found > rank:
                return False
        return False

    def frames(self, positions: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Decode frames, each GOP only once and only as far as is needed.

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
        # Who reads many has what was asked for; keeping it here too would only cost memory.
        keeps = len(positions) == 1
        for position in positions:
            frame = self._frame_at(position)
            if keeps:
                self._keep(position, frame)
            yield position, frame

    def steps_to(self, position: int) -> int:
        """How many frames must be decoded to get the one at a position."""
        if not 0 <= position < len(self.table) or frame_cache().get(self._number, position):
            return 0
        entry = self.table.likely_entry_for(position)
        if self._is_ahead(position) and entry <= self._next:
            return max(position - self._newest, 0)
        return position - self.table.first_position(entry) + 1

    def _frame_at(self, position: int) -> VideoFrame:
        if not 0 <= position < len(self.table):
            raise beyond_end(self.name, len(self.table), self._first + position)
        frame = frame_cache().get(self._number, position)
        while frame is None:
            try:
                if self._suspect:
                    self._prove_order(self.table.entry_for(position))
                frame = self._search(position)
            except _UnreachableError:
                raise self._undecodable(position, "its packets are not there") from None
            except _IrregularError as trouble:
                self._be_careful(relist=isinstance(trouble, _UnlistedError))
        return frame

    def _search(self, position: int) -> VideoFrame:
        """Decode up to a position, from where the decoder stands or from an entry."""
        entry = self.table.entry_for(position)
        # Where the decoder was emptied it goes on only if it could have begun there.
        elsewhere = self._drained and position > self._newest and entry != self._next
        if not self._is_ahead(position) or entry > self._next or elsewhere:
            self._stand_at(entry)
        while not self._finished or self._ready:
            while self._ready and self._is_settled(self._ready[0][0]):
                there, frame = self._ready[0]
                if there > position:
                    break
                self._ready.popleft()
                if there == position:
                    self._check(position)
                    self._check_format(position, frame)
                    return frame
                self._keep(there, frame)
            if self._ready and self._ready[0][0] > position:
                break
            timed = self.table.timed
            if self._media.is_far and self._ends_before_next(position):
                self._drain()
            else:
                self._advance()
            if self.table.timed != timed:
                self._stand_at(0)
        if not self._careful:
            raise _IrregularError
        self._check(position)
        raise self._undecodable(position, "the decoder gives no frame for it")

    def _is_ahead(self, position: int) -> bool:
        """Whether the frame waits to be handed out, or is still to be decoded."""
        return position >= (self._ready[0][0] if self._ready else self._newest + 1)

    def _is_settled(self, position: int) -> bool:
        """Whether all frames are out to which the one at a position refers, each of them whole."""
        return self._finished or self._newest >= int(self.table.settled[position])

    def _ends_before_next(self, position: int) -> bool:
        """Whether everything for a frame was sent, and the next packet begins a GOP not fetched yet."""
        table, rank = self.table, self._next
        if self._careful or not table.seems_entry(rank) or position >= table.first_position(rank):
            return False
        return not self._media.holds(int(table.pos[rank]))

    def _drain(self) -> None:
        """Have the decoder give what it holds back, rather than request what follows only for that."""
        if self._drained:
            raise _IrregularError
        self._collect(self._send(None, self._next))
        self._context.flush_buffers()
        self._drained = True

    def _keep(self, position: int, frame: VideoFrame) -> None:
        table = self.table
        if not self._damaged[table.rank_of_position[position]] and self._has_format(frame):
            if not self._frame_bytes:
                self._frame_bytes = sum(plane.buffer_size for plane in frame.planes)
            frame_cache().put(self._number, position, frame, self._frame_bytes)

    def _check(self, position: int) -> None:
        if self._damaged[self.table.rank_of_position[position]]:
            raise self._undecodable(position, self._reason or "it is damaged")

    def _has_format(self, frame: VideoFrame) -> bool:
        shape = frame.height, frame.width
        return (frame.format.name, shape) == (self.pixel_format, self.frame_shape)

    def _check_format(self, position: int, frame: VideoFrame) -> None:
        if not self._has_format(frame):
            there = frame.format.name, (frame.height, frame.width)
            before = self.pixel_format, self.frame_shape
            raise of_another_format(self.name, self._first + position, there, before)

    def _undecodable(self, position: int, reason: str) -> CorruptChunkError:
        return undecodable(self.name, self._first + position, reason)

    def _be_careful(self, *, relist: bool = False) -> None:
        """Go on with one thread, if need be with the packets that are really there."""
        import av

        self._careful = self._suspect = True
        self._reopen()
        if relist:
            try:
                self.table = demuxed_table(self._media, self._video)
            except av.FFmpegError as error:
                raise CorruptChunkError(
                    f"{self.name} cannot be demuxed ({error.strerror}); it is damaged"
                ) from error
            self._damaged = np.zeros(len(self.table.pts), bool)
            self._reopen()
        self._rewind()

    def _prove_beginning(self) -> None:
        """Decode the first frames, if the codec may reorder them though timestamps say it did not."""
        self._media.prefetch([self.table.byte_range(0, min(_PROOF, len(self.table.pts)))])
        try:
            while self._next < _PROOF and not self._finished:
                self._advance()
                self._ready.clear()
            self._stand_at(0)
        except _IrregularError as trouble:
            self._be_careful(relist=isinstance(trouble, _UnlistedError))
            self._prove_order(0)

    def _prove_order(self, entry: int) -> None:
        """Decode a GOP, to see whether its frames come in the order of their timestamps.

        A muxer that was not told of presentation times writes those of decoding in their place.
        """
        self._suspect = False
        table = self.table
        if not table.timed:
            return
        self._stand_at(entry)
        end = table.entry_after(entry) + MAX_REORDERED
        # Another table says that timestamps are not believed any more.
        while self.table is table and self._next < end and not self._finished:
            self._advance()
            self._ready.clear()
        self._stand_at(entry if self.table is table else 0)

    def _advance(self) -> None:
        """Send one more packet, or the end, and collect the frames that come out."""
        import av

        try:
            packet = next(self._packets, None)
        except av.FFmpegError as error:
            self._damage(self._next, str(error.strerror))
            packet = None
        if packet is None:
            self._finish()
            return
        rank, self._next = self._next, self._next + 1
        self._drained = False
        if not (self._careful and not self.table.listed) and not self.table.is_at(packet, rank):
            raise _UnlistedError if self.table.listed else _IrregularError
        if packet.is_corrupt:
            self._damage(rank, "its data are cut off")
        if self._has_checksums and not has_good_slices(packet):
            self._damage(rank, "its checksum does not match")
        self._collect(self._send(packet, rank))

    def _finish(self) -> None:
        """Collect what the decoder held back."""
        self._finished = True
        if self._next < len(self._damaged):
            self._damage(self._next, "its data are cut off")
        last = self._newest
        self._collect(self._send(None, len(self._damaged)))
        if self.table.breaks_off and self._newest > last:
            # They were held back for frames that may be missing before them.
            if not self._careful:
                raise _IrregularError
            self._reason = "the file breaks off, so that its place is not known"
            self._damaged[self.table.rank_of_position[last + 1 :]] = True

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
        if not self._careful:
            raise _IrregularError
        self._reason = reason
        self._hurt = True
        if self.table.timed:
            self._damaged[self.table.spoiled_by(rank)] = True
        else:
            # A frame that is missing leaves its place, whichever that is, to the next one.
            self._damaged[self.table.rank_of_position[self._newest + 1 :]] = True

    def _collect(self, frames: list[Any]) -> None:
        for frame in frames:
            position = self._position(frame)
            if not self._careful and (position != self._newest + 1 or frame.is_corrupt):
                raise _IrregularError
            if position is None or position >= len(self.table):
                continue
            if position <= self._newest:
                rank = int(self.table.rank_of_position[position])
                if self._hurt:
                    self._damage(rank, "it comes out of turn")
                elif not self._damaged[rank]:
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
        frame_cache().forget(self._number)

    def close(self) -> None:
        """Close the file."""
        # What is still to be demuxed or handed out refers to the container, which refers to it.
        self._packets = iter(())
        self._ready.clear()
        let_go(self._number, self._handles)

    @property
    def closed(self) -> bool:
        """Whether the file is closed, could not be opened again, or not be read."""
        return not self._handles or self._video.input.failed
