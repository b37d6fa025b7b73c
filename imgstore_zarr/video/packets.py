"""Packet tables: what a video file holds, in the order in which it is decoded and shown.

The table is the truth for the number of frames: headers lie, and an index may list only key frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.cached import cached_property

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet as AnyPacket
    from av.video.stream import VideoStream

    Packet = AnyPacket[VideoStream]

Int64s = NDArray[np.int64]
PacketKey = tuple[int, int, int]

NO_TIMESTAMP = np.iinfo(np.int64).min

# So many frames, by H.264 and H.265, may at most be decoded before one that is shown before them.
MAX_REORDERED = 16


@dataclass(frozen=True)
class PacketTable:
    """The packets of a video stream, in the order in which they are decoded.

    Attributes
    ----------
    pts, dts
        int64 (packet,), in the stream's time base; NO_TIMESTAMP where there is none.
    pos, size
        int64 (packet,), place and length in the file, in bytes; -1 where it is not known.
    shown
        bool (packet,), whether the packet gives a frame (an edit list may discard it).
    entry_flags
        bool (packet,), whether decoding may start at the packet, as far as `is_clean` agrees.
    corrupt
        bool (packet,), whether the packet is cut off, or not there at all.
    stamped
        Whether the order of pts is the order in which frames are shown, as far as is known.
    is_clean
        Asked for the place and length of a flagged packet, whether its content lets decoding start
        there; None where the flags say it already.
    listed
        Whether the table is what the file says of itself, and not what was found by demuxing.
    breaks_off
        Whether there may have been more packets: any that were shown before the last ones are missing
        without a trace.
    is_far
        Whether looking into a packet may take a request: then what is only advice goes by `candidates`.
    """

    pts: Int64s
    dts: Int64s
    pos: Int64s
    size: Int64s
    shown: NDArray[np.bool_]
    entry_flags: NDArray[np.bool_]
    corrupt: NDArray[np.bool_]
    stamped: bool = True
    is_clean: Callable[[int, int], bool] | None = field(default=None, repr=False)
    listed: bool = False
    breaks_off: bool = False
    is_far: bool = False
    _proved: dict[int, bool] = field(default_factory=dict, repr=False)

    @cached_property
    def timed(self) -> bool:
        """Whether every frame can be told by its pts."""
        pts = self.pts[self.shown]
        if not self.stamped or bool(np.any(pts == NO_TIMESTAMP)) or len(np.unique(pts)) < len(pts):
            return False
        # Where time jumps back, the decoder shows frames in the order of the file all the same.
        reordered = np.argsort(pts, kind="stable") - np.arange(len(pts))
        return not bool(np.any(reordered > MAX_REORDERED))

    @cached_property
    def _shown_ranks(self) -> Int64s:
        return np.flatnonzero(self.shown).astype(np.int64)

    @cached_property
    def rank_of_position(self) -> Int64s:
        """int64 (frame,): the decode rank of the packet that gives the frame at each position."""
        ranks = self._shown_ranks
        return ranks[np.argsort(self.pts[ranks], kind="stable")] if self.timed else ranks

    @cached_property
    def settled(self) -> Int64s:
        """int64 (frame,): the last position among the frames that are decoded up to each position.

        Among them are all to which the frame refers: only when that position was decoded is it known
        that none of them was damaged.
        """
        shown = np.arange(len(self), dtype=np.int64)
        positions = np.full(len(self.pts), -1, np.int64)
        positions[self.rank_of_position] = shown
        return np.maximum.accumulate(positions)[self.rank_of_position] if self.timed else shown

    @cached_property
    def ascending(self) -> bool:
        """Whether frames are decoded in the order in which they are shown, to go by their pts."""
        return bool(np.all(np.diff(self.pts[self.shown]) > 0))

    @cached_property
    def frame_pts(self) -> Int64s:
        """int64 (frame,): the pts of the frame at each position, ascending if `timed`."""
        return self.pts[self.rank_of_position]

    def __len__(self) -> int:
        return len(self.rank_of_position)

    @cached_property
    def candidates(self) -> Int64s:
        """int64 (entry,): entries by their flags and timestamps, whatever their content says."""
        flags = self.entry_flags.copy()
        if not len(flags):
            return np.empty(0, np.int64)
        if self.timed and not bool(np.any(self.pts == NO_TIMESTAMP)):
            before = np.maximum.accumulate(self.pts)
            after = np.minimum.accumulate(self.pts[::-1])[::-1]
            flags[1:] &= before[:-1] < self.pts[1:]
            flags[:-1] &= self.pts[:-1] < after[1:]
        else:
            flags[:] = False
        flags[0] = True
        return np.flatnonzero(flags).astype(np.int64)

    def _is_entry(self, rank: int) -> bool:
        if rank == 0 or self.is_clean is None:
            return True
        if rank not in self._proved:
            self._proved[rank] = self.is_clean(int(self.pos[rank]), int(self.size[rank]))
        return self._proved[rank]

    @cached_property
    def entries(self) -> Int64s:
        """int64 (entry,): the decode ranks at which decoding may start cleanly.

        From such a packet on, every frame that is shown later comes from it or a packet after it,
        and none of those needs a packet before it. The first packet is always one.
        """
        ranks = self.candidates
        return ranks[[self._is_entry(rank) for rank in ranks.tolist()]] if len(ranks) else ranks

    def entry_before(self, rank: int) -> int:
        """Return the last clean entry at or before a decode rank."""
        i = int(np.searchsorted(self.candidates, rank, side="right")) - 1
        while not self._is_entry(entry := int(self.candidates[i])):
            i -= 1
        return entry

    def entry_after(self, rank: int) -> int:
        """Return the first clean entry after a decode rank, or the number of packets."""
        i = int(np.searchsorted(self.candidates, rank, side="right"))
        for entry in self.candidates[i:].tolist():
            if self._is_entry(entry):
                return int(entry)
        return len(self.pts)

    @property
    def likely_entries(self) -> Int64s:
        """int64 (entry,): `entries`, but without requests, to plan by and not to decode by."""
        return self.candidates if self.is_far else self.entries

    def likely_entry_before(self, rank: int) -> int:
        """Return `entry_before` without requests."""
        if not self.is_far:
            return self.entry_before(rank)
        return int(self.candidates[np.searchsorted(self.candidates, rank, side="right") - 1])

    def entry_for(self, position: int) -> int:
        """Return where to start for a position; without timestamps frames can only be counted."""
        return self.entry_before(int(self.rank_of_position[position])) if self.timed else 0

    def likely_entry_for(self, position: int) -> int:
        """Return `entry_for` without requests."""
        return self.likely_entry_before(int(self.rank_of_position[position])) if self.timed else 0

    def seems_entry(self, rank: int) -> bool:
        """Tell whether a decode rank is one of the candidates."""
        i = int(np.searchsorted(self.candidates, rank))
        return i < len(self.candidates) and int(self.candidates[i]) == rank

    def likely_entry_after(self, rank: int) -> int:
        """Return `entry_after` without requests."""
        if not self.is_far:
            return self.entry_after(rank)
        i = int(np.searchsorted(self.candidates, rank, side="right"))
        return int(self.candidates[i]) if i < len(self.candidates) else len(self.pts)

    def byte_range(self, start: int, stop: int) -> tuple[int, int]:
        """Return from where to where in the file the packets of some decode ranks lie."""
        return int(self.pos[start]), int(self.pos[stop - 1] + self.size[stop - 1])

    def spoiled_by(self, rank: int) -> slice | NDArray[np.bool_]:
        """Return which packets, by decode rank, cannot be trusted when one is damaged.

        Those up to the next clean entry; but of a file that was cut out of another one only the
        leading ones, which are shown before its first packet, where one of them lacks its past.
        """
        if self.timed and self.pts[rank] < self.pts[0] and self.entry_before(rank) == 0:
            leading: NDArray[np.bool_] = self.pts < self.pts[0]
            return leading
        return slice(rank, self.entry_after(rank))

    def first_position(self, entry: int) -> int:
        """Return the position of the first frame that is shown when decoding starts at an entry."""
        return int(np.searchsorted(self._shown_ranks, entry))

    @cached_property
    def gop(self) -> int:
        """The usual number of frames from one clean entry to the next."""
        edges = np.append(self.likely_entries, len(self.pts))
        return int(np.median(np.diff(edges))) if len(self.pts) else 1

    def position_of_pts(self, pts: int | None) -> int | None:
        """Return the position of a decoded frame, or None if no packet announced it."""
        if pts is None:
            return None
        i = int(np.searchsorted(self.frame_pts, pts))
        return i if i < len(self.frame_pts) and self.frame_pts[i] == pts else None

    @cached_property
    def _keys(self) -> list[PacketKey]:
        columns = (self.pts, self.dts, self.pos)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    @cached_property
    def _ranks(self) -> dict[PacketKey, int]:
        last_first = zip(reversed(self._keys), range(len(self._keys) - 1, -1, -1), strict=True)
        return dict(last_first)

    def rank_of(self, packet: Packet) -> int | None:
        """Return the decode rank of a packet that was demuxed again, None if it is not known."""
        return self._ranks.get(packet_key(packet))

    def is_at(self, packet: Packet, rank: int) -> bool:
        """Tell whether a packet that was demuxed again is the one of a decode rank."""
        return rank < len(self.pts) and packet_key(packet) == self._keys[rank]


def _stamp(value: int | None) -> int:
    return NO_TIMESTAMP if value is None else value


def packet_key(packet: Packet) -> PacketKey:
    """Return what tells a packet from all others of its stream: pts, dts and place."""
    pos = -1 if packet.pos is None else packet.pos
    return _stamp(packet.pts), _stamp(packet.dts), pos


def media_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Iterate over the packets of a stream that hold data; what demuxing raises ends it."""
    return (packet for packet in container.demux(stream) if packet.size)
