"""Columns: coordinates and extra data as one-dimensional Zarr arrays, written chunk by chunk."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import ChunkMissingError, CorruptChunkError, InvalidMetadataError
from imgstore_zarr.native.codecs import (
    BYTES_CODEC,
    CRC32C_CODEC,
    ZSTD_CODEC,
    DecodeError,
    decode_column,
    encode_column,
)
from imgstore_zarr.native.metadata import (
    ATTRIBUTE,
    COLUMN_CHUNK,
    array_metadata,
    column_metadata,
    parse_dtype,
    parse_shape,
)
from imgstore_zarr.storage import Location, access_error

Record = dict[str, Any]

_EXACT_IN_FLOAT = 2**53
# More than this many requests at once gain nothing, on disk or in object storage.
_CONCURRENT_READS = 16


class ColumnWriter:
    """Appends to a column; keeps only its last chunk in memory.

    Parameters
    ----------
    location
        The recording.
    name
        The array's path in the recording.
    dtype
        Of the values, little endian.
    row
        Shape of one value: () or (bytes,).
    durable
        Whether what is written must survive power loss.
    """

    def __init__(
        self,
        location: Location,
        name: str,
        dtype: np.dtype[Any],
        row: tuple[int, ...] = (),
        *,
        durable: bool = False,
    ) -> None:
        self._location = location
        self._name = name
        self._durable = durable
        self._tail = np.zeros((chunk_length(row), *row), dtype)
        self._count = 0
        self._written = 0

    @classmethod
    def resumed(
        cls, location: Location, name: str, dtype: np.dtype[Any], unchanged: int
    ) -> ColumnWriter:
        """Return a writer that goes on at the start of the chunk of the first changed value."""
        writer = cls(location, name, dtype, durable=True)
        writer._count = writer._written = unchanged - unchanged % len(writer._tail)
        return writer

    @property
    def count(self) -> int:
        """Values so far."""
        return self._count

    def append(self, value: Any) -> None:
        """Append one value; a full chunk is written when the next value comes or at `write`."""
        place = self._count % len(self._tail)
        if place == 0 and self._count:
            self.write()
            self._tail[...] = 0
        self._tail[place] = value
        self._count += 1

    def write(self) -> None:
        """Write the last chunk, where it has changed. Until the shape is committed nobody looks."""
        if self._written == self._count:
            return
        key = _chunk_key(self._name, (self._count - 1) // len(self._tail), self._tail.ndim)
        self._location.write(key, encode_column(self._tail), durable=self._durable)
        self._written = self._count


def chunk_length(row: tuple[int, ...]) -> int:
    """Return how many values a chunk of a column holds: fewer where they are wide."""
    return max(1, COLUMN_CHUNK // max(1, math.prod(row)))


def _chunk_key(name: str, chunk: int, ndim: int) -> str:
    return f"{name}/c/{chunk}" + "/0" * (ndim - 1)


def read_column(
    location: Location, name: str, count: int, dtype: np.dtype[Any], row: tuple[int, ...] = ()
) -> NDArray[Any]:
    """Read a column.

    Returns
    -------
    ndarray
        (count, *row), in native byte order.

    Raises
    ------
    ChunkMissingError, CorruptChunkError
        Naming the recording, the array and the chunk.
    """
    column = np.empty((count, *row), dtype)
    length = chunk_length(row)

    def read(chunk: int) -> None:
        key = _chunk_key(name, chunk, 1 + len(row))
        start = chunk * length
        try:
            part = column[start : start + length]
            values = part if len(part) == length else np.empty((length, *row), dtype)
            decode_column(location.read(key), values)
            if values is not part:
                part[...] = values[: len(part)]
        except FileNotFoundError as error:
            raise ChunkMissingError(
                f"{location.name}: {key} is missing, which holds {name} from position {start} on; "
                "restore it from a backup"
            ) from error
        except PermissionError as error:
            raise access_error(location, f"reading {key}", error) from error
        except (DecodeError, OSError) as error:
            raise CorruptChunkError(
                f"{location.name}: {key}, which holds {name} from position {start} on, is damaged "
                f"({error}); restore it from a backup"
            ) from error

    chunks = range(-(-count // length))
    if len(chunks) <= 1:
        for chunk in chunks:
            read(chunk)
    else:
        with ThreadPoolExecutor(_CONCURRENT_READS) as pool:
            for _ in pool.map(read, chunks):
                pass
    return column.astype(dtype.newbyteorder("="), copy=False)


@dataclass
class _Field:
    """What is known of a field of extra data after a look at all its values."""

    present: int = 0
    kinds: frozenset[str] = frozenset()
    exact_in_float: bool = True
    in_int64: bool = True
    json_bytes: int = 1

    def see(self, value: Any) -> None:
        kind = _kind(value)
        self.kinds |= {kind}
        self.present += kind != "null"
        if kind == "int":
            self.exact_in_float = self.exact_in_float and abs(value) <= _EXACT_IN_FLOAT
            self.in_int64 = self.in_int64 and -(2**63) <= value < 2**63
        self.json_bytes = max(self.json_bytes, len(_json_bytes(value)))

    def dtype(self, records: int) -> np.dtype[Any] | None:
        """The dtype of its column, None where it must be JSON text."""
        complete = self.present == records
        if complete and self.kinds == {"bool"}:
            return np.dtype(bool)
        if complete and self.kinds == {"int"} and self.in_int64:
            return np.dtype("<i8")
        if self.kinds <= {"int", "float", "null"} and self.exact_in_float and self.present:
            return np.dtype("<f8")
        return None


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    return "float" if isinstance(value, float) else "other"


def _json_bytes(value: Any) -> bytes:
    # ASCII, since Python's strings can hold what UTF-8 cannot.
    return json.dumps(value).encode()


def write_extra(
    location: Location, records: Callable[[], Iterable[Record]]
) -> dict[str, dict[str, Any]]:
    """Write extra data as columns, reading the records twice so that they need not be in memory.

    Parameters
    ----------
    location
        The recording.
    records
        Gives the records, from the first, each time it is called.

    Returns
    -------
    dict
        Per field the metadata of its array, in the order in which the fields first appear.
    """
    fields: dict[str, _Field] = {}
    count = 0
    for record in records():
        count += 1
        for name, value in record.items():
            fields.setdefault(name, _Field()).see(value)
    documents: dict[str, dict[str, Any]] = {}
    writers: dict[str, tuple[ColumnWriter, Callable[[Any], Any]]] = {}
    for name, field in fields.items():
        dtype, path = field.dtype(count), f"extra/{name}"
        if dtype is not None:
            documents[name] = column_metadata(count, dtype, "record")
            writers[name] = ColumnWriter(location, path, dtype), _number
            continue
        width = field.json_bytes
        documents[name] = array_metadata(
            shape=(count, width),
            chunk_shape=(chunk_length((width,)), width),
            dtype=np.dtype(np.uint8),
            codecs=[BYTES_CODEC, ZSTD_CODEC, CRC32C_CODEC],
            dimension_names=("record", f"{name}_byte"),
            attributes={ATTRIBUTE: {"type": "json"}},
        )
        writer = ColumnWriter(location, path, np.dtype(np.uint8), (width,))
        writers[name] = writer, _text(width)
    for record in records():
        for name, (writer, convert) in writers.items():
            writer.append(convert(record.get(name, _ABSENT)))
    for writer, _ in writers.values():
        writer.write()
    return documents


_ABSENT = object()


def _number(value: Any) -> Any:
    return np.nan if value is None or value is _ABSENT else value


def _text(width: int) -> Callable[[Any], NDArray[np.uint8]]:
    def convert(value: Any) -> NDArray[np.uint8]:
        text = np.zeros(width, np.uint8)
        if value is not _ABSENT:
            data = _json_bytes(value)
            text[: len(data)] = np.frombuffer(data, np.uint8)
        return text

    return convert


def read_extra(
    location: Location, documents: Mapping[str, Mapping[str, Any]]
) -> dict[str, NDArray[Any] | list[Any]]:
    """Read the columns of extra data.

    Returns
    -------
    dict
        Per field its values: an array, or a list where they are JSON; NaN where there is none.
    """
    columns: dict[str, NDArray[Any] | list[Any]] = {}
    for name, document in documents.items():
        try:
            count, *row = parse_shape(document["shape"])
            dtype = parse_dtype(document["data_type"])
            is_json = ATTRIBUTE in document["attributes"]
            if len(row) != is_json:
                raise ValueError(f"the shape {document['shape']}")
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidMetadataError(
                f"{location.name}: the metadata of extra/{name} are damaged ({error!r})"
            ) from error
        values = read_column(location, f"extra/{name}", count, dtype, tuple(row))
        columns[name] = list(_parse_texts(location, name, values)) if is_json else values
    return columns


def _parse_texts(location: Location, name: str, values: NDArray[np.uint8]) -> Iterator[Any]:
    for row, text in enumerate(values):
        data = text.tobytes().rstrip(b"\0")
        try:
            yield json.loads(data) if data else np.nan
        except ValueError as error:
            raise CorruptChunkError(
                f"{location.name}: record {row} of extra/{name} is no JSON ({error})"
            ) from error
