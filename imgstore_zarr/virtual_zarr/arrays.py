"""VirtualArray: a Zarr array whose chunks are made when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.native.codecs import bytes_codec
from imgstore_zarr.native.nodes import array_metadata

Rows = Callable[[int, int], NDArray[Any]]
"""Reads the rows start .. stop-1 of an array, or raises."""

_NUMBER = re.compile(r"0|[1-9]\d{0,17}")


@dataclass(frozen=True, eq=False)
class VirtualArray:
    """An array that is cut into chunks along its first axis alone, and not compressed.

    Attributes
    ----------
    shape
        Rows, and the shape of one.
    dtype
        What its bytes are: little endian.
    chunk_rows
        Rows in a chunk, at least 1.
    read
        Gives rows, of any byte order.
    dimension_names
        As many as the shape has axes.
    attributes
        As they are to be in its ``zarr.json``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_rows: int
    read: Rows = field(repr=False)
    dimension_names: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fill_value(self) -> Any:
        """What stands after the last row, as JSON has it."""
        return "NaN" if self.dtype.kind == "f" else False if self.dtype.kind == "b" else 0

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk, the last one included."""
        return self.chunk_rows * self.row_bytes

    @property
    def chunk_count(self) -> int:
        """How many chunks there are."""
        return -(-self.shape[0] // self.chunk_rows)

    def first_rows(self, count: int) -> VirtualArray:
        """Return the array without the rows that follow."""
        return replace(self, shape=(count, *self.shape[1:]))

    def document(self) -> dict[str, Any]:
        """Return the ``zarr.json``."""
        return array_metadata(
            shape=self.shape,
            chunk_shape=(self.chunk_rows, *self.shape[1:]),
            dtype=self.dtype,
            codecs=[bytes_codec(self.dtype.itemsize)],
            dimension_names=self.dimension_names,
            fill_value=self.fill_value,
            attributes=self.attributes,
        )

    def chunk_key(self, chunk: int) -> str:
        """Return the key of a chunk, relative to the array."""
        return "/".join(["c", str(chunk), *["0"] * (len(self.shape) - 1)])

    def chunk_of(self, key: str) -> int | None:
        """Return the chunk that has a key, None where there is no such chunk."""
        head, *rest = key.split("/")
        if head != "c" or not rest or _NUMBER.fullmatch(rest[0]) is None:
            return None
        chunk = int(rest[0])
        return chunk if chunk < self.chunk_count and key == self.chunk_key(chunk) else None

    def chunk(self, chunk: int, start: int, stop: int) -> NDArray[np.uint8]:
        """Return bytes start .. stop-1 of a chunk; only the rows that they belong to are read.

        Raises
        ------
        ChunkMissingError, CorruptChunkError
            What cannot be read; it is never filled in.
        """
        if start >= stop:
            return np.empty(0, np.uint8)
        low, high = start // self.row_bytes, -(-stop // self.row_bytes)
        first = chunk * self.chunk_rows + low
        last = min(chunk * self.chunk_rows + high, self.shape[0])
        parts = []
        if first < last:
            values = np.ascontiguousarray(self.read(first, last), self.dtype)
            if values.shape != (last - first, *self.shape[1:]):
                raise CorruptChunkError(f"rows {first} to {last - 1} have shape {values.shape}")
            parts.append(values)
        after = high - low - max(last - first, 0)
        if after:
            fill = np.nan if self.fill_value == "NaN" else self.fill_value
            parts.append(np.full((after, *self.shape[1:]), fill, self.dtype))
        block = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return block.reshape(-1).view(np.uint8)[
            start - low * self.row_bytes : stop - low * self.row_bytes
        ]
