"""The log of extra data: one line a record, each with a checksum, until the recording is closed.

The first line says of which generation of the recording they are: what was thrown away must not come
back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.extra import dump_record
from imgstore_zarr.native.codecs import checksum

Record = dict[str, Any]

_DIGITS = 8
_GENERATION = b"generation "


def encode_line(record: Record) -> bytes:
    """Return a record as a line: its CRC-32C in eight hexadecimal digits, a space, JSON, a line feed."""
    return _line(dump_record(record).encode())


def _line(text: bytes) -> bytes:
    return b"%08x %s\n" % (checksum(text), text)


def decode_lines(name: str, lines: Iterable[bytes]) -> Iterator[Record]:
    """Decode lines, up to a last one that is cut off.

    Raises
    ------
    CorruptChunkError
        A line is not as it was written. The name is that of the recording.
    """
    for number, line in enumerate(lines, 1):
        text = line[_DIGITS + 1 : -1]
        whole = line[: _DIGITS + 1] == b"%08x " % checksum(text)
        ended = line.endswith(b"\n")
        if not ended and not whole:
            return
        if not (ended and whole):
            raise CorruptChunkError(
                f"{name}: line {number} of the extra data that are not committed yet is damaged; "
                "imgstore_zarr.repair(...) keeps the records before it, and the file"
            )
        if not text.startswith(_GENERATION):
            record: Record = json.loads(text)
            yield record


def is_thrown_away(lines: Iterable[bytes], generation: int) -> bool:
    """Whether a log is certainly of another generation of the recording than this."""
    line = next(iter(lines), b"")
    text = line[_DIGITS + 1 : -1]
    of_log = text.startswith(_GENERATION) and _line(text) == line
    return of_log and text != _generation(generation)


def _generation(generation: int) -> bytes:
    return _GENERATION + b"%d" % generation


def read_log(name: str, path: Path, frame_count: int) -> Iterator[Record]:
    """Iterate over the records in a file that belong to some first frames; see `decode_lines`."""
    with path.open("rb") as file:
        yield from (
            record for record in decode_lines(name, file) if record["frame_index"] < frame_count
        )


def write_log(path: Path, records: Iterable[Record], generation: int, *, durable: bool) -> int:
    """Write a log, which is there all at once; return its size."""
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(_line(_generation(generation)))
        file.writelines(map(encode_line, records))
        size = file.tell()
        if durable:
            file.flush()
            os.fsync(file.fileno())
    new.replace(path)
    return size
