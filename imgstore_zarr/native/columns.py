"""Columns: coordinates and extra data as one-dimensional Zarr arrays, written chunk by chunk."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import ChunkMissingError, CorruptChunkError
from imgstore_zarr.native.codecs import (
    DecodeError,
    decode_column,
    encode_column,
)
from imgstore_zarr.native.metadata import (
    COLUMN_CHUNK,
)
from imgstore_zarr.storage import Location, access_error

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
        cls, location: Location, name: str, dtype: np.dtype[Any], count: int, *, durable: bool
    ) -> ColumnWriter:
        """Return a writer that goes on after the values that are there already."""
        writer = cls(location, name, dtype, durable=durable)
        writer._count = writer._written = count - count % len(writer._tail)
        writer.extend(read_column(location, name, count, dtype, start=writer._count))
        writer._written = count
        return writer

    @property
    def count(self) -> int:
        """Values so far."""
        return self._count

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        dtype: np.dtype[Any] = self._tail.dtype
        return dtype

    def make_room(self) -> None:
        """Write the last chunk if it is full, so that the next `append` cannot fail."""
        if self._count and self._count % len(self._tail) == 0:
            self.write()
            self._tail[...] = 0

    def append(self, value: Any) -> None:
        """Append one value."""
        self.make_room()
        self._tail[self._count % len(self._tail)] = value
        self._count += 1

    def extend(self, values: NDArray[Any]) -> None:
        """Append values, a chunk at a time."""
        done = 0
        while done < len(values):
            self.make_room()
            place = self._count % len(self._tail)
            part = values[done : done + len(self._tail) - place]
            self._tail[place : place + len(part)] = part
            self._count += len(part)
            done += len(part)

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
    location: Location,
    name: str,
    count: int,
    dtype: np.dtype[Any],
    row: tuple[int, ...] = (),
    *,
    start: int = 0,
) -> NDArray[Any]:
    """Read a column.

    Parameters
    ----------
    location
        The recording.
    name
        The array's path in the recording.
    count
        Its length.
    dtype
        Of the values, little endian.
    row
        Shape of one value.
    start
        The first value to read, where a chunk begins.

    Returns
    -------
    ndarray
        (count - start, *row), in native byte order.

    Raises
    ------
    ChunkMissingError, CorruptChunkError
        Naming the recording, the array and the chunk.
    """
    column = np.empty((count - start, *row), dtype)
    length = chunk_length(row)

    def read(chunk: int) -> None:
        key = _chunk_key(name, chunk, 1 + len(row))
        position = chunk * length
        try:
            part = column[position - start : position - start + length]
            values = part if len(part) == length else np.empty((length, *row), dtype)
            decode_column(location.read(key), values)
            if values is not part:
                part[...] = values[: len(part)]
        except FileNotFoundError as error:
            raise ChunkMissingError(
                f"{location.name}: {key} is missing, which holds {name} from position {position} on; "
                "restore it from a backup"
            ) from error
        except PermissionError as error:
            raise access_error(location, f"reading {key}", error) from error
        except (DecodeError, OSError) as error:
            raise CorruptChunkError(
                f"{location.name}: {key}, which holds {name} from position {position} on, is damaged "
                f"({error}); restore it from a backup"
            ) from error

    chunks = range(start // length, -(-count // length))
    if len(chunks) <= 1:
        for chunk in chunks:
            read(chunk)
    else:
        with ThreadPoolExecutor(_CONCURRENT_READS) as pool:
            for _ in pool.map(read, chunks):
                pass
    return column.astype(dtype.newbyteorder("="), copy=False)
