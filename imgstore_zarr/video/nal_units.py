"""NAL units of H.264 and H.265: where decoding may start, and which packets give no frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import SupportsBytes

# Slices (1-5) and what of them is an IDR picture (5): ITU-T H.264, table 7-1.
_H264_SLICES = frozenset(range(1, 6))
_H264_IDR = 5
# RASL (8, 9), BLA (16-18), IDR (19, 20), CRA (21), ends of a sequence (36, 37): ITU-T H.265,
# table 7-1.
_HEVC_SLICES = frozenset(range(32))
_HEVC_RASL = frozenset({8, 9})
_HEVC_BLA = frozenset({16, 17, 18})
_HEVC_IDR = frozenset({19, 20})
_HEVC_CRA = 21
_HEVC_IRAP = frozenset(range(16, 22))
_HEVC_END = frozenset({36, 37})

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


class EntryTest:
    """Tells by the content of a key packet whether decoding may start there.

    Parameters
    ----------
    codec
        FFmpeg's name of the codec.
    extradata
        What the container says to the decoder.

    Attributes
    ----------
    by_flag
        The answer for every key packet, where the content need not be looked at; else None.
    """

    def __init__(self, codec: str, extradata: bytes) -> None:
        self._length_bytes = _length_bytes(codec, extradata)
        self._codec = codec
        self.by_flag: bool | None = None
        if codec in _CLEAN_BY_FLAG or codec.removeprefix("lib").startswith(("dav1d", "aom")):
            self.by_flag = True
        elif codec not in ("h264", "hevc"):
            self.by_flag = False

    def picture(self, data: SupportsBytes) -> int | None:
        """Return the type of the first slice, None where the data end before one."""
        for unit in _units(self._codec, bytes(data), self._length_bytes):
            if unit in (_H264_SLICES if self._codec == "h264" else _HEVC_SLICES):
                return unit
        return None

    def is_clean(self, data: SupportsBytes) -> bool:
        """Tell it for a key packet, or for as much of it as holds its first slice."""
        if self.by_flag is not None:
            return self.by_flag
        picture = self.picture(data)
        return picture == _H264_IDR if self._codec == "h264" else picture in _HEVC_IRAP

    def is_idr(self, data: SupportsBytes) -> bool:
        """Tell whether the packet begins a sequence, so that none after it lacks its past."""
        picture = self.picture(data)
        return picture == _H264_IDR if self._codec == "h264" else picture in _HEVC_IDR


def skip_test(codec: str, extradata: bytes) -> Callable[[bytes], bool]:
    """Return what tells, shown all packets in turn, whether the decoder gives no frame for one.

    Leading pictures (RASL) need frames from before their CRA, which are not there if it begins a
    sequence: ITU-T H.265, 8.1.3.
    """
    begins = True
    skips = False
    length_bytes = _length_bytes(codec, extradata)

    def is_skipped(data: bytes) -> bool:
        nonlocal begins, skips
        units = list(_units(codec, data, length_bytes))
        for unit in units:
            if unit in _HEVC_IRAP:
                skips = unit in _HEVC_BLA or (unit == _HEVC_CRA and begins)
                begins = False
        begins = begins or not _HEVC_END.isdisjoint(units)
        return skips and not _HEVC_RASL.isdisjoint(units)

    return is_skipped


def _length_bytes(codec: str, extradata: bytes) -> int:
    """Bytes of the length before each unit; 0 where start codes separate them.

    Byte 0 tells an avcC or hvcC record (1) from plain start codes: ISO/IEC 14496-15.
    """
    at = 4 if codec == "h264" else 21
    return (extradata[at] & 3) + 1 if extradata[:1] == b"\x01" and len(extradata) > at else 0


def _units(codec: str, data: bytes, length_bytes: int) -> Iterator[int]:
    """Iterate over the types of the NAL units in a packet."""
    for header in _nal_headers(data, length_bytes):
        yield header & 0x1F if codec == "h264" else (header >> 1) & 0x3F


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
