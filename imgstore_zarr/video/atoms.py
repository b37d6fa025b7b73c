"""The atoms of an mp4: where one that is being written breaks off."""

from __future__ import annotations

import os
import struct
from pathlib import Path

_HEADER = struct.Struct(">I4s")
_LONG_SIZE = struct.Struct(">Q")


def cut_fragment(path: str | os.PathLike[str]) -> int | None:
    """Return where the header of a fragment (``moof``) begins whose end is missing.

    FFmpeg reads a file that breaks off in the media of a fragment, but none that does in its header.

    Parameters
    ----------
    path
        Any file.

    Returns
    -------
    int or None
        None where the file does not break off so.
    """
    with Path(path).open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        at = 0
        while at < end:
            file.seek(at)
            header = file.read(_HEADER.size + _LONG_SIZE.size)
            if len(header) < _HEADER.size:
                return at
            size, kind = _HEADER.unpack_from(header)
            if size == 1 and len(header) == _HEADER.size + _LONG_SIZE.size:
                (size,) = _LONG_SIZE.unpack_from(header, _HEADER.size)
            if kind == b"moof" and at + size > end:
                return at
            if size < _HEADER.size:
                return None
            at += size
    return None
