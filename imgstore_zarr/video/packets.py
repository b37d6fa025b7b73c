"""Packet tables: what a video file holds, found out by demuxing and without decoding.

The table is the truth for the number of frames: headers lie, and an index may list only key frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet as AnyPacket
    from av.video.stream import VideoStream

    Packet = AnyPacket[VideoStream]

Int64s = NDArray[np.int64]

NO_TIMESTAMP = np.iinfo(np.int64).min

# Codecs whose key packets are clean entries once no later packet is shown before them.
_CLEAN_BY_FLAG = frozenset(
    {
        "av1",
        "dnxhd",
        "ffv1",
        "ffvhuff",
        "huffyuv",
        "mjpeg",
        "mpeg1video",
        "mpeg2video",
        "mpeg4",
        "png",
        "prores",
        "rawvideo",
        "utvideo",
        "vp8",
        "vp9",
    }
)

_H264_IDR = frozenset({5})
# RASL (8, 9), BLA (16-18), IDR (19, 20), CRA (21), ends of a sequence (36, 37): ITU-T H.265,
# table 7-1.
_HEVC_RASL = frozenset({8, 9})
_HEVC_BLA = frozenset({16, 17, 18})
_HEVC_CRA = 21
_HEVC_IRAP = frozenset(range(16, 22))
_HEVC_END = frozenset({36, 37})

# Containers that hold no presentation times: FFmpeg makes some up, in the order of decoding.
_WITHOUT_PTS = frozenset({"avi"})

# So many frames, by H.264 and H.265, may at most be decoded before one that is shown before them.
_MAX_REORDERED = 16


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
        bool (packet,), whether decoding may start at the packet, as far as its own content says.
    corrupt
        bool (packet,), whether the demuxer found the packet to be cut off.
    stamped
        Whether the order of pts is the order in which frames are shown, as far as is known.
    """

    pts: Int64s
    dts: Int64s
    pos: Int64s
    size: Int64s
    shown: NDArray[np.bool_]
    entry_flags: NDArray[np.bool_]
    corrupt: NDArray[np.bool_]
    stamped: bool = True
    _ranks: dict[tuple[int, int, int, int], int] = field(default_factory=dict, repr=False)

    @cached_property
    def timed(self) -> bool:
        """Whether every frame can be told by its pts."""
        pts = self.pts[self.shown]
        if not self.stamped or bool(np.any(pts == NO_TIMESTAMP)) or len(np.unique(pts)) < len(pts):
            return False
        # Where time jumps back, the decoder shows frames in the order of the file all the same.
        reordered = np.argsort(pts, kind="stable") - np.arange(len(pts))
        return not bool(np.any(reordered > _MAX_REORDERED))

    @cached_property
    def ascending(self) -> bool:
        """Whether frames are decoded in the order in which they are shown, to go by their pts."""
        return bool(np.all(np.diff(self.pts[self.shown]) > 0))

    @cached_property
    def rank_of_position(self) -> Int64s:
        """int64 (frame,): the decode rank of the packet that gives the frame at each position."""
        ranks = np.flatnonzero(self.shown).astype(np.int64)
        return ranks[np.argsort(self.pts[ranks], kind="stable")] if self.timed else ranks

    @cached_property
    def frame_pts(self) -> Int64s:
        """int64 (frame,): the pts of the frame at each position, ascending if `timed`."""
        return self.pts[self.rank_of_position]

    def __len__(self) -> int:
        return len(self.rank_of_position)

    @cached_property
    def entries(self) -> Int64s:
        """int64 (entry,): the decode ranks at which decoding may start cleanly.

        From such a packet on, every frame that is shown later comes from it or a packet after it,
        and none of those needs a packet before it. The first packet is always one.
        """
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

    def entry_before(self, rank: int) -> int:
        """Return the last clean entry at or before a decode rank."""
        return int(self.entries[np.searchsorted(self.entries, rank, side="right") - 1])

    def entry_after(self, rank: int) -> int:
        """Return the first clean entry after a decode rank, or the number of packets."""
        i = int(np.searchsorted(self.entries, rank, side="right"))
        return int(self.entries[i]) if i < len(self.entries) else len(self.pts)

    @cached_property
    def gop(self) -> int:
        """The usual number of frames from one clean entry to the next."""
        edges = np.append(self.entries, len(self.pts))
        return int(np.median(np.diff(edges))) if len(self.pts) else 1

    def position_of_pts(self, pts: int | None) -> int | None:
        """Return the position of a decoded frame, or None if no packet announced it."""
        if pts is None:
            return None
        i = int(np.searchsorted(self.frame_pts, pts))
        return i if i < len(self.frame_pts) and self.frame_pts[i] == pts else None

    def rank_of(self, packet: Packet) -> int | None:
        """Return the decode rank of a packet that was demuxed again, None if it is not known."""
        if not self._ranks:
            columns = (self.pts, self.dts, self.pos, self.size)
            for rank, key in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
                self._ranks.setdefault(key, rank)
        return self._ranks.get(_key(packet))


def _stamp(value: int | None) -> int:
    return NO_TIMESTAMP if value is None else value


def _key(packet: Packet) -> tuple[int, int, int, int]:
    pos = -1 if packet.pos is None else packet.pos
    return _stamp(packet.pts), _stamp(packet.dts), pos, packet.size


def media_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Iterate over the packets of a stream that hold data; what demuxing raises ends it."""
    return (packet for packet in container.demux(stream) if packet.size)


def read_packet_table(container: InputContainer, stream: VideoStream) -> PacketTable:
    """Demux a stream from where the container stands to its end."""
    context = stream.codec_context
    is_entry = _entry_test(context.name, context.extradata or b"")
    is_skipped = _skip_test(context.name, context.extradata or b"")
    keys, shown, entries, corrupt = [], [], [], []
    for packet in media_packets(container, stream):
        keys.append(_key(packet))
        shown.append(not is_skipped(packet) and not packet.is_discard)
        corrupt.append(packet.is_corrupt)
        entries.append(packet.is_keyframe and is_entry(packet))
    pts, dts, pos, size = np.array(keys, np.int64).reshape(-1, 4).T.copy()
    return PacketTable(
        pts,
        dts,
        pos,
        size,
        shown=np.array(shown, bool),
        entry_flags=np.array(entries, bool),
        corrupt=np.array(corrupt, bool),
        stamped=not (container.format.name in _WITHOUT_PTS and context.has_b_frames),
    )


def _entry_test(codec: str, extradata: bytes) -> Callable[[Packet], bool]:
    """Return what tells whether decoding may start at a key packet."""
    if codec in _CLEAN_BY_FLAG or codec.removeprefix("lib").startswith(("dav1d", "aom")):
        return lambda _: True
    if codec == "h264":
        return lambda packet: not _H264_IDR.isdisjoint(_h264_units(packet, extradata))
    if codec == "hevc":
        return lambda packet: not _HEVC_IRAP.isdisjoint(_hevc_units(packet, extradata))
    return lambda _: False


def _skip_test(codec: str, extradata: bytes) -> Callable[[Packet], bool]:
    """Return what tells, shown all packets in turn, whether the decoder gives no frame for one.

    Leading pictures (RASL) need frames from before their CRA, which are not there if it begins a
    sequence: ITU-T H.265, 8.1.3.
    """
    begins = True
    skips = False

    def is_skipped(packet: Packet) -> bool:
        nonlocal begins, skips
        units = _hevc_units(packet, extradata)
        for unit in units:
            if unit in _HEVC_IRAP:
                skips = unit in _HEVC_BLA or (unit == _HEVC_CRA and begins)
                begins = False
        begins = begins or not _HEVC_END.isdisjoint(units)
        return skips and not _HEVC_RASL.isdisjoint(units)

    return is_skipped if codec == "hevc" else lambda _: False


def _h264_units(packet: Packet, extradata: bytes) -> list[int]:
    """Return the types of the NAL units in a packet."""
    # Byte 0 tells an avcC record (1) from plain start codes: ISO/IEC 14496-15.
    length = (extradata[4] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > 4 else 0
    return [unit & 0x1F for unit in _nal_headers(bytes(packet), length)]


def _hevc_units(packet: Packet, extradata: bytes) -> list[int]:
    length = (extradata[21] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > 21 else 0
    return [(unit >> 1) & 0x3F for unit in _nal_headers(bytes(packet), length)]


def _nal_headers(data: bytes, length_bytes: int) -> Iterator[int]:
    """Iterate over the first byte of each NAL unit; 0 length bytes mean start codes."""
    at = 0
    if length_bytes:
        while at + length_bytes < len(data):
            size = int.from_bytes(data[at : at + length_bytes], "big")
            yield data[at + length_bytes]
            at += length_bytes + size
        return
    while (at := data.find(b"\x00\x00\x01", at)) >= 0 and at + 3 < len(data):
        yield data[at + 3]
        at += 3
