"""Reading packet tables: from the sample tables of an mp4, without its media, else by demuxing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imgstore_zarr.video.completeness import breaks_off
from imgstore_zarr.video.container import OpenVideo
from imgstore_zarr.video.media import Media
from imgstore_zarr.video.nal_units import EntryTest, skip_test
from imgstore_zarr.video.packets import (
    MAX_REORDERED,
    Int64s,
    PacketTable,
    packet_key,
)
from imgstore_zarr.video.sample_tables import composition_offsets

# Containers that hold no presentation times: FFmpeg makes some up, in the order of decoding.
_WITHOUT_PTS = frozenset({"avi"})

# AVINDEX_KEYFRAME and AVINDEX_DISCARD_FRAME of libavformat/avformat.h.
_KEY, _DISCARD = 1, 2

# Before the first slice of a key packet are parameter sets and messages, for x264 about 1 KiB.
_HEAD = 4096


@dataclass(frozen=True)
class _ContentTest:
    """Reads the beginning of packets, to see whether decoding may start there."""

    media: Media
    test: EntryTest

    def head(self, pos: int, size: int) -> bytes:
        """Return the packet up to its first slice at least."""
        with self.media.open() as file:
            file.seek(pos)
            head = file.read(min(size, _HEAD))
            if self.test.picture(head) is None:
                head += file.read(max(size - _HEAD, 0))
        return head

    def all_idr(self, pos: Int64s, size: Int64s) -> bool:
        """Tell whether each of some packets begins a sequence."""
        places = list(zip(pos.tolist(), size.tolist(), strict=True))
        heads = self.media.heads((at, min(n, _HEAD)) for at, n in places)
        return all(
            self.test.is_idr(self.head(*place) if self.test.picture(head) is None else head)
            for place, head in zip(places, heads, strict=True)
        )

    def __call__(self, pos: int, size: int) -> bool:
        return self.test.is_clean(self.head(pos, size))


def listed_table(media: Media, video: OpenVideo) -> PacketTable | None:
    """Return the packets that the sample tables of an mp4 list, without reading its media.

    What libavformat makes of edit lists is in its index; the presentation times, which are not, come
    from the file (ctts). Nothing is known so of fragments, nor of H.265 that may hold leading
    pictures without their past: such files are demuxed.

    Returns
    -------
    PacketTable or None
        None where the file must be demuxed.
    """
    stream = video.stream
    if not video.container.format.name.startswith("mov"):
        return None
    entries = np.array(
        [(e.timestamp, e.pos, e.size, e.flags) for e in stream.index_entries], np.int64
    ).reshape(-1, 4)
    entries = entries[entries[:, 2] > 0]
    dts, pos, size, flags = entries.T.copy()
    offsets = composition_offsets(media, stream.id, pos)
    if offsets is None or not len(entries):
        return None
    context = stream.codec_context
    content = _ContentTest(media, EntryTest(context.name, context.extradata or b""))
    # Where offsets are negative, FFmpeg moves them all.
    first = next(video.packets(), None)
    if first is None or first.pts is None or first.dts is None:
        return None
    offsets += first.pts - first.dts - offsets[0]
    keys = (flags & _KEY) > 0
    if context.name == "hevc" and not content.all_idr(pos[keys], size[keys]):
        return None
    by_flag = content.test.by_flag
    table = PacketTable(
        pts=dts + offsets,
        dts=dts,
        pos=pos,
        size=size,
        shown=(flags & _DISCARD) == 0,
        entry_flags=keys & (by_flag is not False),
        corrupt=pos + size > media.size,
        is_clean=content if by_flag is None else None,
        listed=True,
        is_far=media.is_far,
    )
    return table if table.is_at(first, 0) else None


def demuxed_table(media: Media, video: OpenVideo) -> PacketTable:
    """Demux a stream from where the container stands to its end."""
    container, context = video.container, video.stream.codec_context
    test = EntryTest(context.name, context.extradata or b"")
    is_skipped = skip_test(context.name, context.extradata or b"")
    looks_inside = context.name == "hevc"
    keys, sizes, shown, entries, corrupt = [], [], [], [], []
    for packet in video.packets():
        keys.append(packet_key(packet))
        sizes.append(packet.size)
        skipped = looks_inside and is_skipped(bytes(packet))
        shown.append(not skipped and not packet.is_discard)
        corrupt.append(packet.is_corrupt)
        entries.append(packet.is_keyframe and test.is_clean(packet))
    pts, dts, pos = np.array(keys, np.int64).reshape(-1, 3).T.copy()
    ends_early = breaks_off(media, container.format.name)
    if ends_early is None:
        ends_early = _ends_unevenly(pts[np.array(shown, bool)])
    return PacketTable(
        pts,
        dts,
        pos,
        np.array(sizes, np.int64),
        shown=np.array(shown, bool),
        entry_flags=np.array(entries, bool),
        corrupt=np.array(corrupt, bool),
        stamped=not (container.format.name in _WITHOUT_PTS and context.has_b_frames),
        breaks_off=any(corrupt) or ends_early,
        is_far=media.is_far,
    )


def _ends_unevenly(pts: Int64s) -> bool:
    """Whether a frame seems to be missing among the last ones."""
    intervals = np.diff(np.sort(pts)).astype(float)
    if not len(intervals):
        return False
    return bool(np.any(intervals[-MAX_REORDERED:] > 1.5 * np.median(intervals)))
