"""What was sampled beside the frames of a source, as far as a conversion takes it along."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.cores import in_order
from imgstore_zarr.errors import ChunkMissingError, CorruptChunkError
from imgstore_zarr.extra import ExtraData, HasSampledData, SampledSource, sample_blocks
from imgstore_zarr.index import Float64s, Int64s
from imgstore_zarr.layouts import Holds

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
        if not skip:
            found = extra.sampled()
            return cls(_table(found.records), found.datasets)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            records = extra.read(ignore_corrupt_chunks=True)
        left_out = []
        for text in (str(warning.message) for warning in told):
            if text.startswith(_LEFT_OUT):
                left_out.append(text.removeprefix(_LEFT_OUT))
            else:
                warnings.warn(text, stacklevel=2)
        try:
            datasets = extra.datasets()
        except (ChunkMissingError, CorruptChunkError) as error:
            datasets = {}
            left_out.append(f"everything that was sampled beside the frames, since {error}")
        return cls(records, datasets, tuple(left_out))


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
        foreign = {str(dtype) for dtype in source.dtypes.values()} - holds.sample_dtypes
        if not holds.sample_dtypes:
            left_out.append(described)
            continue
        if foreign:
            left_out.append(f"{described}, of the type {', '.join(sorted(foreign))}")
            continue
        if skip:
            whole, source = source, _readable(source)
            if lost := int(whole.lengths.sum() - source.lengths.sum()):
                left_out.append(f"{lost} samples of {name} that cannot be read")
        if span is not None and not source.timed:
            left_out.append(f"{described}, since nothing says when they were taken")
            continue
        taken[name] = source if span is None else _between(source, *span)
    return taken, left_out


def _described(name: str, source: SampledSource) -> str:
    rate = f", {source.samplerate:g} Hz" if source.samplerate else ""
    return f"{name} ({int(source.lengths.sum())} samples of {len(source.dtypes)}{rate})"


def _between(source: SampledSource, first: float, end: float) -> PickedSamples:
    """The samples that were taken from one time to just before another; times may go back."""

    def kept(bounds: tuple[int, int]) -> NDArray[np.bool_]:
        times = source.times(*bounds)
        return (times >= first) & (times < end)

    return _picked(source, in_order(kept, sample_blocks(source)))


def _readable(source: SampledSource) -> SampledSource:
    """The samples of which every column can be read, as far as blocks tell."""

    def kept(bounds: tuple[int, int]) -> NDArray[np.bool_]:
        try:
            for column in source.dtypes:
                source.read(column, *bounds)
            if source.timed:
                source.times(*bounds)
        except (ChunkMissingError, CorruptChunkError):
            return np.zeros(bounds[1] - bounds[0], np.bool_)
        return np.ones(bounds[1] - bounds[0], np.bool_)

    return _picked(source, in_order(kept, sample_blocks(source)))


def _picked(source: SampledSource, masks: Iterable[NDArray[np.bool_]]) -> PickedSamples:
    edges: list[Int64s] = []
    inside, done = False, 0
    for mask in masks:
        edges.append(np.flatnonzero(np.diff(mask, prepend=inside)) + done)
        inside, done = bool(mask[-1]), done + len(mask)
    bounds = np.concatenate([*edges, np.array([done] if inside else [], np.int64)])
    return PickedSamples(source, bounds[::2], bounds[1::2])
