"""Checksums in packets, which FFmpeg's decoder of FFV1 reads, and whose failure it only logs."""

from __future__ import annotations

import zlib
from typing import SupportsBytes

# FFV1 computes CRC-32 (ISO 3309) from the highest bit of each byte down, zlib from the lowest up.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

# The length of the slice (3), whether it is known to be damaged (1), and the checksum (4): RFC 9043,
# 4.8.
_FOOTER = 8


def has_good_slices(packet: SupportsBytes) -> bool:
    """Tell whether each slice of an FFV1 packet (version 3) agrees with its checksum.

    Of versions without checksums no packet does.
    """
    data = bytes(packet)
    end = len(data)
    while end >= _FOOTER:
        start = end - _FOOTER - int.from_bytes(data[end - _FOOTER : end - _FOOTER + 3], "big")
        # The checksum of data that end in their own is 0; it begins with 0 and is not inverted.
        if start < 0 or zlib.crc32(data[start:end].translate(_REVERSED), 0xFFFFFFFF) != 0xFFFFFFFF:
            return False
        end = start
    return end == 0
