"""Looking through many image files without reading them: what their first and last bytes say."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

_HEAD, _TAIL = 4096, 16

# A start of frame of any kind, then length, precision, height and width: ITU-T T.81, B.2.2.
_SOF = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]..\x08(....)", re.DOTALL)
_PNM = re.compile(rb"P[56]" + 3 * rb"(?:\s|#[^\n]*\n)+(\d{1,10})")
_NPY = re.compile(
    rb"\x93NUMPY.{2,6}\{'descr': '([<>|=][biuf][1248])',[^}]{4,200}'shape': \(([\d, ]+)\)",
    re.DOTALL,
)


def looks_whole(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], usual_bytes: int) -> bool:
    """Whether the ends of an image file say that it is whole, and of the dtype.

    Damage in its middle they do not show. Files of TIFF and Bloscpack have to be read: the one may hold
    its directory anywhere, the other compresses what it says of the array.

    Parameters
    ----------
    path
        The file.
    shape
        (y, x) or (y, x, channel) that it should hold.
    dtype
        Of the pixels that it should hold.
    usual_bytes
        The size of another one, which kinds without compression must have, too.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        size = os.fstat(descriptor).st_size
        head = os.read(descriptor, _HEAD)
        tail = os.pread(descriptor, _TAIL, max(0, size - _TAIL))
    finally:
        os.close(descriptor)
    if head.startswith(b"\x89PNG") and size > 24:
        width, height, bits = struct.unpack_from(">IIB", head, 16)
        if dtype != (np.uint16 if bits > 8 else np.uint8):
            return False
        return (height, width) == shape[:2] and tail.endswith(b"IEND\xaeB`\x82")
    if head.startswith(b"\xff\xd8"):
        frame = _SOF.search(head)
        end = b"\xff\xd9" in tail and dtype == np.uint8
        return end and frame is not None and struct.unpack(">HH", frame[1]) == shape[:2]
    if match := _PNM.match(head):
        if dtype != (np.uint16 if int(match[3]) > 255 else np.uint8):
            return False
        return (int(match[2]), int(match[1])) == shape[:2] and size == usual_bytes
    if match := _NPY.match(head):
        sizes = tuple(int(size) for size in match[2].split(b",") if size.strip())
        same = np.dtype(match[1].decode()).newbyteorder("=") == dtype
        return same and sizes == shape and size == usual_bytes
    if head.startswith(b"BM") and size > 26:
        width, height = struct.unpack_from("<ii", head, 18)
        return dtype == np.uint8 and (abs(height), width) == shape[:2] and size == usual_bytes
    return False
