"""The journal: what a chunk holds while it is being written.

One record a frame, of fixed size and with a checksum of its own, so that after a crash every frame
whose record is whole can be found again.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from imgstore_zarr.native.codecs import checksum

MAGIC = b"imgstjn1"
"""The first bytes of a journal; the last of them is the version."""

_BODY = struct.Struct("<QQqd")
_RECORD = struct.Struct("<QQqdI")
RECORD_BYTES = _RECORD.size


class JournalRecord(NamedTuple):
    """One frame.

    Attributes
    ----------
    offset, length
        Where the inner chunks of the frame's group lie in the shard, in bytes.
    frame_number, frame_time
        As they were given.
    """

    offset: int
    length: int
    frame_number: int
    frame_time: float


def encode_record(record: JournalRecord) -> bytes:
    """Return a record with its checksum."""
    body = _BODY.pack(*record)
    return body + checksum(body).to_bytes(4, "little")


def decode_journal(data: bytes) -> list[JournalRecord]:
    """Return the whole records of a journal, up to the first that is not."""
    if not data.startswith(MAGIC):
        return []
    records = []
    for at in range(len(MAGIC), len(data) - RECORD_BYTES + 1, RECORD_BYTES):
        *fields, stored = _RECORD.unpack_from(data, at)
        if checksum(data[at : at + _BODY.size]) != stored:
            break
        records.append(JournalRecord(*fields))
    return records
