"""Columns: coordinates and extra data as one-dimensional Zarr arrays, written chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from imgstore_zarr.storage import Location, RequestError, access_error, each, is_far

# More than this many at once gain nothing on a disk.
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
        key = chunk_key(self._name, (self._count - 1) // len(self._tail), self._tail.ndim)
        self._location.write(key, encode_column(self._tail), durable=self._durable)
        self._written = self._count


def chunk_length(row: tuple[int, ...]) -> int:
    """Return how many values a chunk of a column holds: fewer where they are wide."""
    return max(1, COLUMN_CHUNK // max(1, math.prod(row)))


def chunk_key(name: str, chunk: int, ndim: int = 1) -> str:
    """Return the key of a chunk of a column."""
    return f"{name}/c/{chunk}" + "/0" * (ndim - 1)


def read_column(
    location: Location,
    name: str,
    count: int,
    dtype: np.dtype[Any],
    row: tuple[int, ...] = (),
    *,
    start: int = 0,
    length: int | None = None,
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
    length
        Values in a chunk; None is `chunk_length`.

    Returns
    -------
    ndarray
        (count - start, *row), in native byte order.

    Raises
    ------
    ChunkMissingError, CorruptChunkError
        Naming the recording, the array and the chunk.
    """
    column = _Column(
        location, name, np.empty((count - start, *row), dtype), start, length or chunk_length(row)
    )
    _read_chunks(location, [(column, chunk) for chunk in column.chunks])
    return column.native


def read_columns(
    location: Location, dtypes: Mapping[str, np.dtype[Any]], count: int
) -> list[NDArray[Any]]:
    """Read columns of one length from their beginning, all at once; see `read_column`.

    Parameters
    ----------
    location
        The recording.
    dtypes
        Per path of an array in the recording the dtype of its values, little endian.
    count
        The length of each.
    """
    columns = [
        _Column(location, name, np.empty(count, dtype), 0, chunk_length(()))
        for name, dtype in dtypes.items()
    ]
    _read_chunks(location, [(column, chunk) for column in columns for chunk in column.chunks])
    return [column.native for column in columns]


@dataclass(frozen=True)
class _Column:
    """A column that is being read, from a chunk on."""

    location: Location
    name: str
    values: NDArray[Any]
    start: int
    length: int

    @property
    def chunks(self) -> range:
        stop = self.start + len(self.values)
        return range(self.start // self.length, -(-stop // self.length))

    @property
    def native(self) -> NDArray[Any]:
        """The values in native byte order."""
        return self.values.astype(self.values.dtype.newbyteorder("="), copy=False)

    def read(self, chunk: int) -> None:
        key = chunk_key(self.name, chunk, self.values.ndim)
        position = chunk * self.length
        what = f"{key}, which holds {self.name} from position {position} on,"
        try:
            begin = position - self.start
            part = self.values[begin : begin + self.length]
            whole = len(part) == self.length
            values = part if whole else np.empty((self.length, *part.shape[1:]), part.dtype)
            decode_column(self.location.read(key), values)
            if not whole:
                part[...] = values[: len(part)]
        except FileNotFoundError as error:
            raise ChunkMissingError(
                f"{self.location.name}: {what} is missing; restore it from a backup"
            ) from error
        except (PermissionError, RequestError) as error:
            raise access_error(self.location, f"reading {key}", error) from error
        except (DecodeError, OSError) as error:
            raise CorruptChunkError(
                f"{self.location.name}: {what} is damaged ({error}); restore it from a backup"
            ) from error


def _read_chunks(location: Location, chunks: list[tuple[_Column, int]]) -> None:
    def read(one: tuple[_Column, int]) -> None:
        column, chunk = one
        column.read(chunk)

    if len(chunks) <= 1:
        for one in chunks:
            read(one)
    elif is_far(location):
        each(read, chunks)
    else:
        with ThreadPoolExecutor(_CONCURRENT_READS) as pool:
            for _ in pool.map(read, chunks):
                pass
