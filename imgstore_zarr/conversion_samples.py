"""What was sampled beside the frames of a source, as far as a conversion takes it along."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.cached import cached_property
from imgstore_zarr.cores import in_order
from imgstore_zarr.errors import ChunkMissingError, CorruptChunkError, InvalidMetadataError
from imgstore_zarr.extra import ExtraData, HasSampledData, SampledSource, sample_blocks
from imgstore_zarr.index import Float64s, Int64s
from imgstore_zarr.layouts import Holds
from imgstore_zarr.report import counted

if TYPE_CHECKING:
    import pandas as pd

# How a warning of `ExtraData.read` begins.
_LEFT_OUT = "left out: "

_Read = Callable[[int, int], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class PickedSamples:
    """Ranges of the rows of a source, one after the other; see `SampledSource`.

    Attributes
    ----------
    source
        Where they are read.
    starts, stops
        int64 (range,), half-open.
    """

    source: SampledSource
    starts: Int64s
    stops: Int64s

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """Those of the source."""
        return self.source.dtypes

    @property
    def lengths(self) -> Int64s:
        """int64 (range,)."""
        return self.stops - self.starts

    @property
    def samplerate(self) -> float | None:
        """That of the source."""
        return self.source.samplerate

    @property
    def timed(self) -> bool:
        """Whether the source says when they were taken."""
        return self.source.timed

    def read(self, column: str, start: int, stop: int) -> NDArray[Any]:
        """Read some rows of a column; see `SampledSource.read`."""
        return self._read(partial(self.source.read, column), self.dtypes[column], start, stop)

    def times(self, start: int, stop: int) -> Float64s:
        """Return when some rows were sampled; see `SampledSource.times`."""
        return self._read(self.source.times, np.dtype(np.float64), start, stop)

    @cached_property
    def _ends(self) -> Int64s:
        return np.cumsum(self.lengths)

    def _read(self, read: _Read, dtype: np.dtype[Any], start: int, stop: int) -> NDArray[Any]:
        out = np.empty(stop - start, dtype)
        place, done = int(np.searchsorted(self._ends, start, side="right")), 0
        while done < len(out):
            end = int(self._ends[place])
            last = int(self.stops[place])
            count = min(stop, end) - start - done
            first = last - (end - start - done)
            out[done : done + count] = read(first, first + count)
            done += count
            place += 1
        return out


@dataclass(frozen=True)
class Beside:
    """What was recorded beside the frames of a source.

    Attributes
    ----------
    records
        One row per record; None where there are none.
    datasets
        What was sampled, by name.
    left_out
        What of it cannot be read, in words.
    """

    records: pd.DataFrame | None
    datasets: Mapping[str, SampledSource]
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, extra: ExtraData, *, skip: bool) -> Beside:
        """Read the records, and what the datasets are.

        Parameters
        ----------
        extra
            Of the source.
        skip
            Whether files that cannot be read are left out.
        """
        if not isinstance(extra, HasSampledData):
            return cls(extra.read(skip), {})
        try:
            found = extra.sampled()
            return cls(_table(found.records), found.datasets)
        except (ChunkMissingError, CorruptChunkError, InvalidMetadataError):
            if not skip:
                raise
        datasets: Mapping[str, SampledSource] = {}
        impossible = []
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            records = extra.read(ignore_corrupt_chunks=True)
            try:
                datasets = extra.datasets(ignore_corrupt_chunks=True)
            except (ChunkMissingError, CorruptChunkError, InvalidMetadataError) as error:
                impossible = [f"everything that was sampled beside the frames, since {error}"]
        texts = dict.fromkeys(str(warning.message) for warning in told)
        left_out = [text.removeprefix(_LEFT_OUT) for text in texts if text.startswith(_LEFT_OUT)]
        for text in texts:
            if not text.startswith(_LEFT_OUT):
                warnings.warn(text, stacklevel=2)
        return cls(records, datasets, (*left_out, *impossible))


def _table(records: SampledSource | pd.DataFrame | None) -> pd.DataFrame | None:
    import pandas as pd

    if records is None or isinstance(records, pd.DataFrame):
        return records
    count = int(records.lengths.sum())
    return pd.DataFrame({name: records.read(name, 0, count) for name in records.dtypes})


def taken_along(
    datasets: Mapping[str, SampledSource],
    holds: Holds,
    span: tuple[float, float] | None,
    *,
    skip: bool,
) -> tuple[dict[str, SampledSource], list[str]]:
    """Return the datasets that come along, and what does not, in words.

    Parameters
    ----------
    datasets
        Of the source.
    holds
        What the destination can hold.
    span
        The times (half-open) of the samples to take; None takes all of them.
    skip
        Whether samples that cannot be read are left out.
    """
    taken: dict[str, SampledSource] = {}
    left_out: list[str] = []
    for name, source in datasets.items():
        described = _described(name, source)
        dtypes = {*source.dtypes.values()}
        foreign = {str(dtype) for dtype in dtypes if dtype.name not in holds.sample_dtypes}
        if not holds.sample_dtypes:
            left_out.append(described)
        elif foreign:
            left_out.append(f"{described}, of the type {', '.join(sorted(foreign))}")
        elif span is not None and not source.timed:
            left_out.append(f"{described}, since nothing says when they were taken")
        elif span is not None and np.isnan(span[0]):
            left_out.append(f"{described}, since no frame that is kept has a time")
        elif span is None and not skip:
            taken[name] = source
        else:
            seen = [*in_order(partial(_look, source, span, skip), sample_blocks(source))]
            taken[name] = _picked(source, seen)
            if lost := sum(part.unreadable for part in seen):
                left_out.append(f"{counted(lost, 'sample')} of {name} that cannot be read")
            if lost := sum(part.timeless for part in seen):
                left_out.append(
                    f"{counted(lost, 'sample')} of {name}, since nothing says when they were taken"
                )
    return taken, left_out


def _described(name: str, source: SampledSource) -> str:
    rate = f", {source.samplerate:g} Hz" if source.samplerate else ""
    samples, columns = int(source.lengths.sum()), len(source.dtypes)
    return f"{name} ({counted(samples, 'sample')} of {counted(columns, 'column')}{rate})"


class _Seen(NamedTuple):
    """What is to be taken of a block.

    Attributes
    ----------
    edges
        int64 (n,), where samples that are taken begin and end, by turns.
    unreadable, timeless
        How many samples are left out since they cannot be read, or since nothing says when they were
        taken.
    """

    edges: Int64s
    unreadable: int = 0
    timeless: int = 0


def _look(
    source: SampledSource, span: tuple[float, float] | None, skip: bool, bounds: tuple[int, int]
) -> _Seen:
    """Look which samples of a block were taken in a span, and whether all columns of them can be read.

    Times may go back. What cannot be read, and only that which is wanted, is told by blocks.
    """
    start, stop = bounds
    wanted, timeless = np.ones(stop - start, np.bool_), 0
    try:
        if span is not None:
            times = source.times(start, stop)
            wanted = (times >= span[0]) & (times < span[1])
            timeless = int(np.isnan(times).sum())
        if skip and wanted.any():
            first, last = np.flatnonzero(wanted)[[0, -1]] + start
            for column in source.dtypes:
                source.read(column, int(first), int(last) + 1)
            if source.timed and span is None:
                source.times(start, stop)
    except (ChunkMissingError, CorruptChunkError):
        if not skip:
            raise
        return _Seen(np.empty(0, np.int64), int(wanted.sum()), timeless)
    edges = np.flatnonzero(np.diff(wanted, prepend=False, append=False))
    return _Seen(edges + start, 0, timeless)


def _picked(source: SampledSource, seen: Sequence[_Seen]) -> PickedSamples:
    edges = np.concatenate([np.empty(0, np.int64), *(part.edges for part in seen)])
    # A range that ends where the next block's begins goes on there.
    within = np.flatnonzero(edges[1:] == edges[:-1])
    edges = np.delete(edges, np.concatenate([within, within + 1]))
    return PickedSamples(source, edges[::2], edges[1::2])
