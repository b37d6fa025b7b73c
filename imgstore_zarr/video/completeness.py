"""Whether a file goes as far as its container says; read from its outermost headers alone."""

from __future__ import annotations

import os
import struct

from imgstore_zarr.video.atoms import Readable, last_atom_end
from imgstore_zarr.video.media import Media

# RFC 8794 and RFC 9559.
_SEGMENT = b"\x18\x53\x80\x67"
_RIFF = struct.Struct("<4sI")


def breaks_off(media: Media, container: str) -> bool | None:
    """Tell whether packets may be missing at the end of a file.

    Parameters
    ----------
    media
        The file.
    container
        FFmpeg's name of its format.

    Returns
    -------
    bool or None
        None for formats that do not say where they end, as transport streams.
    """
    with media.open() as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        if container.startswith("matroska"):
            return _segment_end(file) > end
        if container == "avi":
            return _riff_end(file, end) > end
        return last_atom_end(file) > end if container.startswith("mov") else None


def _segment_end(file: Readable) -> float:
    """Where the segment ends that holds everything; nowhere as long as it is being written."""
    file.seek(4)
    size, _ = _element_size(file)
    file.seek(int(size), os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return 0
    size, is_known = _element_size(file)
    return file.tell() + size if is_known else float("inf")


def _element_size(file: Readable) -> tuple[int, bool]:
    """Read a number of variable length, and whether it is one: all bits set means unknown."""
    first = file.read(1)
    length = 9 - first[0].bit_length() if first and first[0] else 1
    rest = file.read(length - 1)
    mask = (1 << (7 * length)) - 1
    value = int.from_bytes(first + rest, "big") & mask
    return value, value != mask


def _riff_end(file: Readable, end: int) -> float:
    """Where the last of the lists ends; files beyond 1 GiB have several."""
    at = 0
    while at + _RIFF.size <= end:
        file.seek(at)
        kind, size = _RIFF.unpack(file.read(_RIFF.size))
        if kind != b"RIFF":
            break
        if not size:
            return float("inf")  # it is filled in when the file is closed
        at += _RIFF.size + size + size % 2
    return at
