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


def decode_journal(data: bytes) -> tuple[list[JournalRecord], int]:
    """Read a journal, up to the first record that is not whole.

    Returns
    -------
    records
        The whole ones.
    damaged
        How many whole places follow that hold none; a last one that is cut off is of a frame that was
        just being added, and does not count.
    """
    places = max(0, len(data) - len(MAGIC)) // RECORD_BYTES
    records: list[JournalRecord] = []
    for at in range(len(MAGIC), len(MAGIC) + places * RECORD_BYTES, RECORD_BYTES):
        *fields, stored = _RECORD.unpack_from(data, at)
        if not data.startswith(MAGIC) or checksum(data[at : at + _BODY.size]) != stored:
            break
        records.append(JournalRecord(*fields))
    return records, places - len(records)
