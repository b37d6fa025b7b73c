"""The journal of a chunk that is being written: frame numbers and times, until it has an index.

One record a frame, of fixed size and with a checksum of its own, written by one system call: a
killed process leaves every frame that has a record.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from imgstore_compat.chunk_index import Columns

SUFFIX = ".index.journal"
"""What is added to the key of a chunk's index without an ending."""

_MAGIC = b"imgscjn1"
_BODY = struct.Struct("<qd")
_RECORD = struct.Struct("<qdI")


class ChunkJournal:
    """The journal of one chunk, to be written.

    Parameters
    ----------
    path
        The file; one that is there is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._file.write(_MAGIC)

    def append(self, frame_number: int, frame_time: float) -> None:
        """Append a frame, whose pixels must be on storage already, or be counted there when read."""
        body = _BODY.pack(frame_number, frame_time)
        if self._file.write(body + zlib.crc32(body).to_bytes(4, "little")) != _RECORD.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def keep(self, count: int) -> None:
        """Forget all frames but the first, and whatever was written of another."""
        size = len(_MAGIC) + count * _RECORD.size
        self._file.truncate(size)
        self._file.seek(size)

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()

    def discard(self) -> None:
        """Close and remove the file: the chunk has its index, or is not wanted."""
        self.close()
        self._path.unlink(missing_ok=True)


def decode_journal(data: bytes) -> Columns:
    """Return frame numbers and times of the whole records, up to the first that is not."""
    numbers, times = [], []
    start = len(_MAGIC) if data.startswith(_MAGIC) else len(data)
    for at in range(start, len(data) - _RECORD.size + 1, _RECORD.size):
        number, time, stored = _RECORD.unpack_from(data, at)
        if zlib.crc32(data[at : at + _BODY.size]) != stored:
            break
        numbers.append(number)
        times.append(time)
    return np.array(numbers, np.int64), np.array(times, np.float64)
