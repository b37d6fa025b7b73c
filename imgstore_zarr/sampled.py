"""SampledArray: rows of a SampledSource behind xarray's own lazy indexing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from imgstore_zarr.dataarray import BLOCK_BYTES, MAX_BLOCKS

# Rows that are read with those on both sides of them rather than by another read.
_GAP = 2**14

# Rows that one read covers at most when some of them are picked, for memory.
_SPAN = 2**20


class SampledArray(BackendArray):
    """Reads rows when xarray asks for values.

    What is pickled (for dask workers) is what `read` is made of, not what it gives.

    Parameters
    ----------
    read
        Gives the rows from .. to, as a half-open range; can be pickled.
    length
        How many rows there are.
    dtype
        What they hold.
    """

    def __init__(
        self, read: Callable[[int, int], NDArray[Any]], length: int, dtype: np.dtype[Any]
    ) -> None:
        self._read = read
        self.shape = (length,)
        self.dtype = dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        # xarray cannot turn round an empty slice that goes backwards.
        (part,) = key.tuple
        if isinstance(part, slice) and not range(self.shape[0])[part]:
            return np.empty(0, self.dtype)
        result: NDArray[Any] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._outer
        )
        return result

    def _outer(self, key: tuple[Any, ...]) -> NDArray[Any]:
        (part,) = key
        (length,) = self.shape
        if isinstance(part, slice):
            places = range(length)[part]
            if places.step == 1:
                return self._read(places.start, max(places.start, places.stop))
            return self._picked(np.arange(places.start, places.stop, places.step))
        wanted = np.where(np.less(part, 0), part + length, part).astype(np.int64)
        if wanted.ndim == 0:
            one: NDArray[Any] = self._read(int(wanted), int(wanted) + 1)[0]
            return one
        rows, inverse = np.unique(wanted, return_inverse=True)
        return self._picked(rows)[inverse]

    def _picked(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read some rows, which ascend."""
        out = np.empty(len(rows), self.dtype)
        cuts = np.flatnonzero((np.diff(rows) > _GAP) | (np.diff(rows // _SPAN) != 0)) + 1
        for low, high in itertools.pairwise([0, *cuts.tolist(), len(rows)]):
            if low < high:
                first = int(rows[low])
                out[low:high] = self._read(first, int(rows[high - 1]) + 1)[rows[low:high] - first]
        return out


def block_lengths(lengths: Sequence[int], row_bytes: int) -> tuple[int, ...]:
    """Cut rows into blocks that are good to read together: whole chunks, or equal parts of one.

    Parameters
    ----------
    lengths
        How many rows each chunk has.
    row_bytes
        Size of a row in memory.

    Returns
    -------
    tuple of int
        Rows in each block: about `BLOCK_BYTES`, more where there would be over `MAX_BLOCKS`.
    """
    most = max(BLOCK_BYTES // row_bytes, -(-sum(lengths) // MAX_BLOCKS), 1)
    blocks: list[int] = []
    collected = 0
    for length in lengths:
        if collected and collected + length > most:
            blocks.append(collected)
            collected = 0
        if length <= most:
            collected += length
            continue
        part = -(-length // -(-length // most))
        blocks += [part] * (length // part)
        if length % part:
            blocks.append(length % part)
    if collected or not blocks:
        blocks.append(collected)
    return tuple(blocks)
