"""The journal: what a chunk holds while it is being written.

First the generation of the recording: what was thrown away must not come back. Then one record a frame,
of fixed size and with a checksum of its own, so that after a crash every frame whose record is whole can
be found again.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from imgstore_zarr.native.codecs import checksum

# The last byte is the version.
_MAGIC = b"imgstjn2"
# Of journals that do not say of which generation they are.
_MAGIC_1 = b"imgstjn1"
_HEAD = struct.Struct("<8sQ")
_HEADER = struct.Struct("<8sQI")

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


class Journal(NamedTuple):
    """What was read of a journal.

    Attributes
    ----------
    generation
        Of the recording when the chunk was begun; None where that is not known.
    records
        The first whole ones.
    damaged
        How many whole places follow that hold none; a last one that is cut off is of a frame that was
        just being added, and does not count.
    """

    generation: int | None
    records: list[JournalRecord]
    damaged: int


def encode_header(generation: int) -> bytes:
    """Return what a journal begins with, with its checksum."""
    head = _HEAD.pack(_MAGIC, generation)
    return head + checksum(head).to_bytes(4, "little")


def encode_record(record: JournalRecord) -> bytes:
    """Return a record with its checksum."""
    body = _BODY.pack(*record)
    return body + checksum(body).to_bytes(4, "little")


def decode_journal(data: bytes) -> Journal:
    """Read a journal, up to the first record that is not whole."""
    generation, start = None, _HEADER.size
    known = False
    if data.startswith(_MAGIC_1):
        start, known = len(_MAGIC_1), True
    elif len(data) >= start:
        magic, found, stored = _HEADER.unpack_from(data)
        if known := magic == _MAGIC and checksum(data[: _HEAD.size]) == stored:
            generation = found
    places = max(0, len(data) - start) // RECORD_BYTES
    records: list[JournalRecord] = []
    for at in range(start, start + places * RECORD_BYTES, RECORD_BYTES):
        *fields, stored = _RECORD.unpack_from(data, at)
        if not known or checksum(data[at : at + _BODY.size]) != stored:
            break
        records.append(JournalRecord(*fields))
    return Journal(generation, records, places - len(records))
