"""The chunks of a recording: their indexes read, and what a writer left unfinished of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from imgstore_compat.chunk_index import Columns, read_chunk_index
from imgstore_compat.chunk_journal import SUFFIX as JOURNAL
from imgstore_compat.chunk_journal import decode_journal
from imgstore_zarr.errors import CorruptChunkError
from imgstore_zarr.index import FrameIndex
from imgstore_zarr.layouts import Problem
from imgstore_zarr.storage import Location, RequestError, access_error, is_far
from imgstore_zarr.storage.requests import CONCURRENT

# Indexes are small files: what takes the time is to open them.
_CONCURRENT_READS = 8

Stems = Mapping[int, str]
"""Per number of a chunk, ascending, the key of its index without an ending."""


@dataclass(frozen=True)
class Chunks:
    """What the indexes of a recording say.

    Attributes
    ----------
    index
        The frames of the chunks that have any.
    problems
        Chunks whose index is missing or damaged, or that were not finished.
    """

    index: FrameIndex
    problems: tuple[Problem, ...]


Stored = Callable[[int], int]
"""Says how many whole frames a chunk has on storage; asked only of chunks that are not finished."""


def read_chunks(location: Location, stems: Stems, stored: Stored) -> Chunks:
    """Read the index of every chunk that has frames or an index."""
    joined, problems = _Joined(len(stems)), []
    # Not the threads of `each`: what is not finished is looked into, which makes requests there.
    with ThreadPoolExecutor(CONCURRENT if is_far(location) else _CONCURRENT_READS) as pool:
        found = pool.map(lambda n: _read_chunk(location, n, stems[n], stored), stems)
        for number, (columns, problem) in zip(stems, found, strict=True):
            if columns is not None:
                joined.append(number, columns)
            if problem is not None:
                problems.append(problem)
    return Chunks(joined.index(), tuple(problems))


def holes(location: Location, numbers: Collection[int]) -> tuple[Problem, ...]:
    """Return a problem for each run of chunks that have no files between those that have.

    Numbers may start above 0.

    Parameters
    ----------
    location
        The recording.
    numbers
        The chunks that have files or frames.
    """
    return tuple(
        Problem("chunk-missing", _hole(location, before, after), before + 1)
        for before, after in itertools.pairwise(sorted(numbers))
        if after - before > 1
    )


def _hole(location: Location, before: int, after: int) -> str:
    one = after - before == 2
    which = f"chunk {before + 1}" if one else f"chunks {before + 1} .. {after - 1}"
    return (
        f"{location.name}: no files of {which} between chunks {before} and {after}; restore them from "
        "a backup, if there were any"
    )


def find_position(
    location: Location, stems: Stems, stored: Stored, position: int
) -> tuple[int, int] | None:
    """Find a position, reading only the indexes of the chunks up to it.

    Returns
    -------
    (chunk, place), or None
        The number of the chunk, and the place in it; None where there is no such position.
    """
    for number, stem in stems.items():
        columns, _ = _read_chunk(location, number, stem, stored)
        count = 0 if columns is None else len(columns[0])
        if position < count:
            return number, position
        position -= count
    return None


def _read_chunk(
    location: Location, number: int, stem: str, stored: Stored
) -> tuple[Columns | None, Problem | None]:
    name = location.name
    try:
        columns = read_chunk_index(location, stem)
        journal = read_journal(location, stem) if columns is None else None
        if columns is None and journal is None:
            # A writer may have finished it between the two, and writes the index first.
            columns = read_chunk_index(location, stem)
    except CorruptChunkError as error:
        what = f"{error}; the frames of chunk {number} are left out"
        return None, Problem("index-damaged", what, number)
    if columns is not None:
        return columns, None
    if journal is None:
        what = (
            f"{name}: chunk {number} has no index ({stem}.npz), so its frames have no numbers and "
            f"are left out; restore {stem}.npz from a backup"
        )
        return None, Problem("chunk-without-index", what, number)
    count = min(len(journal[0]), stored(number))
    what = (
        f"{name}: chunk {number} is being written, or its writer was interrupted; {count} frames of "
        "it can be read; if no writer is at work, imgstore_zarr.repair(...) finishes it"
    )
    return (journal[0][:count], journal[1][:count]), Problem("repair-due", what, number)


def read_journal(location: Location, stem: str) -> Columns | None:
    """Return the frame numbers and times of a chunk that was not finished; None without a journal."""
    try:
        return decode_journal(location.read(stem + JOURNAL))
    except FileNotFoundError:
        return None
    except RequestError as error:
        raise access_error(location, f"reading {stem}{JOURNAL}", error) from error
    except IsADirectoryError as error:
        raise CorruptChunkError(
            f"{location.name}: {stem}{JOURNAL} should be a file, and is a directory"
        ) from error


class _Joined:
    """The columns of many chunks, put into one each as they come: a week of them fits but once.

    Parameters
    ----------
    chunks
        How many there may be, for a guess of how much memory they take.
    """

    def __init__(self, chunks: int) -> None:
        self._chunks = chunks
        self._columns: Columns = np.empty(0, np.int64), np.empty(0, np.float64)
        self._count = 0
        self._starts: list[int] = []
        self._numbers: list[int] = []

    def append(self, number: int, columns: Columns) -> None:
        """Add a chunk; one of no frames is left out."""
        length = len(columns[0])
        if not length:
            return
        stop = self._count + length
        if stop > len(self._columns[0]):
            # What is not written to takes no memory.
            size = max(length * (self._chunks - len(self._numbers)) + self._count, 2 * self._count)
            larger: Columns = np.empty(size, np.int64), np.empty(size, np.float64)
            for old, new in zip(self._columns, larger, strict=True):
                new[: self._count] = old[: self._count]
            self._columns = larger
        for column, values in zip(self._columns, columns, strict=True):
            column[self._count : stop] = values
        self._starts.append(self._count)
        self._numbers.append(number)
        self._count = stop

    def index(self) -> FrameIndex:
        """Return one index of all chunks."""
        numbers, times = (column[: self._count] for column in self._columns)
        return FrameIndex(numbers, times, np.array(self._starts, np.int64), self._numbers)
