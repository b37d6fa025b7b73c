"""Curves: the extra data of a recording, as the lowest and the highest value in each column."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.errors import ImgStoreError
from imgstore_zarr.extra import HasSampledData, SampledSource, sample_blocks
from imgstore_zarr.index import Float64s
from imgstore_zarr.viewer.viewed import Viewed

_log = logging.getLogger("imgstore_zarr.viewer")

OVERVIEW_BINS = 2**16
"""Bins that are kept of a channel."""

MOST_ROWS = 2**20
"""Rows that are read at once; where more are to be shown, the overview is."""

MOST_CHANNELS = 64
"""Channels that are offered."""

# Seconds before the extra data of a recording that grows are read again.
_SELDOM = 10.0

_NO_CURVES = frozenset({"frame_index", "frame_number", "frame_time"})


@dataclass(frozen=True)
class Channel:
    """One column of extra data.

    Attributes
    ----------
    name
        Of the column; with that of its dataset before it, where it was sampled.
    samplerate
        In Hz; None where the recording does not say.
    source
        Where it is read from.
    column
        Its name there.
    """

    name: str
    samplerate: float | None
    source: SampledSource | _Table
    column: str


class _Table:
    """Records that were read already, with the times of their frames."""

    def __init__(self, times: Float64s, columns: Mapping[str, Float64s]) -> None:
        order = np.argsort(times, kind="stable")
        self._times = times[order]
        self._columns = {name: values[order] for name, values in columns.items()}

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.array([len(self._times)], np.int64)

    def read(self, column: str, start: int, stop: int) -> Float64s:
        return self._columns[column][start:stop]

    def times(self, start: int, stop: int) -> Float64s:
        return self._times[start:stop]


@dataclass(frozen=True, eq=False)
class Binned:
    """A channel in bins: where each begins in time, and its extremes; NaN where nothing is known."""

    time: Float64s
    low: Float64s
    high: Float64s
    first_row: NDArray[np.int64]


class Curves:
    """The channels of a recording. What was read of one is kept as an overview, nothing else.

    Parameters
    ----------
    viewed
        The recording.
    """

    def __init__(self, viewed: Viewed) -> None:
        self._viewed = viewed
        self._index = viewed.index
        self._begun = monotonic()
        self._extra = viewed.store.parts.extra
        self._lock = threading.Lock()
        self._channels: list[Channel] | None = None
        self._overviews: dict[int, Binned] = {}
        self.trouble: str | None = None

    @property
    def fresh(self) -> bool:
        """Whether there is no need to read them anew: the recording has not grown, or just now."""
        grown = self._viewed.index is not self._index
        return not grown or monotonic() - self._begun < _SELDOM

    def channels(self) -> list[Channel]:
        """Return what there is, as far as it is numbers; reads the records, but no samples."""
        with self._lock:
            if self._channels is None:
                try:
                    self._channels = self._found()
                except (ImgStoreError, OSError) as error:
                    _log.warning("%s", error)
                    self._channels, self.trouble = [], self._viewed.without_path(str(error))
            return self._channels

    def _found(self) -> list[Channel]:
        extra = self._extra
        if not extra.exists():
            return []
        found: list[Channel] = []
        frame = extra.read(ignore_corrupt_chunks=True)
        if frame is not None and "frame_time" in frame:
            import pandas as pd

            numbers = {
                str(name): column.to_numpy(np.float64, na_value=np.nan)
                for name, column in frame.items()
                if pd.api.types.is_numeric_dtype(column.dtype) and column.dtype.kind != "c"
            }
            times = numbers.get("frame_time")
            if times is not None:
                known = np.isfinite(times)
                table = _Table(times[known], {n: v[known] for n, v in numbers.items()})
                found += [Channel(n, None, table, n) for n in numbers if n not in _NO_CURVES]
        if isinstance(extra, HasSampledData):
            for name, source in extra.datasets().items():
                found += [
                    Channel(f"{name}/{column}", source.samplerate, source, column)
                    for column, dtype in source.dtypes.items()
                    if source.timed and dtype.kind in "biuf"
                ]
        return found[:MOST_CHANNELS]

    def curve(self, number: int, start: float, stop: float, bins: int) -> dict[str, Any]:
        """Return a channel from `start` to `stop` seconds in so many bins.

        Raises
        ------
        CorruptChunkError, ChunkMissingError
            A file of extra data is damaged, or not there.
        """
        channel = self.channels()[number]
        overview = self._overview(number, channel)
        rows = int(channel.source.lengths.sum())
        low = max(int(np.searchsorted(overview.time, start)) - 1, 0)
        high = int(np.searchsorted(overview.time, stop, side="right"))
        firsts = np.append(overview.first_row, rows)
        first, last = int(firsts[low]), int(firsts[min(high, len(firsts) - 1)])
        if last - first <= MOST_ROWS:
            times = channel.source.times(first, last)
            values = np.asarray(channel.source.read(channel.column, first, last), np.float64)
            lows = highs = values
        else:
            times = overview.time[low:high]
            lows, highs = overview.low[low:high], overview.high[low:high]
        edges = np.linspace(start, stop, bins + 1)
        finite = np.isfinite(times)
        if not finite.all():
            times, lows, highs = times[finite], lows[finite], highs[finite]
        return {
            "name": channel.name,
            "start": start,
            "stop": stop,
            "low": _per_bin(np.fmin, times, lows, edges),
            "high": _per_bin(np.fmax, times, highs, edges),
            "extent": _extremes(overview),
        }

    def _overview(self, number: int, channel: Channel) -> Binned:
        with self._lock:
            known = self._overviews.get(number)
            if known is None:
                known = self._overviews[number] = _overview_of(channel)
            return known


def _overview_of(channel: Channel) -> Binned:
    """Read a channel once, block by block."""
    rows = int(channel.source.lengths.sum())
    width = max(1, -(-rows // OVERVIEW_BINS))
    parts = []
    blocks = [(0, rows)] if isinstance(channel.source, _Table) else sample_blocks(channel.source)
    for start, stop in blocks:
        values = np.asarray(channel.source.read(channel.column, start, stop), np.float64)
        values = np.where(np.isfinite(values), values, np.nan)
        times = channel.source.times(start, stop)
        if not len(values):
            continue
        firsts = np.arange(0, len(values), width)
        parts.append(
            (
                times[firsts],
                np.fmin.reduceat(values, firsts),
                np.fmax.reduceat(values, firsts),
                firsts + start,
            )
        )
    if not parts:
        nothing = np.empty(0)
        return Binned(nothing, nothing, nothing, np.empty(0, np.int64))
    time, low, high, first = (np.concatenate(column) for column in zip(*parts, strict=True))
    known = np.isfinite(time)
    return Binned(np.maximum.accumulate(time[known]), low[known], high[known], first[known])


def _per_bin(
    extreme: np.ufunc, times: Float64s, values: Float64s, edges: Float64s
) -> list[float | None]:
    """The extreme of each bin; None where it has no value."""
    bounds = np.searchsorted(times, edges)
    bounds[-1] = np.searchsorted(times, edges[-1], side="right")
    result = np.full(len(edges) - 1, np.nan)
    filled = np.flatnonzero(np.diff(bounds) > 0)
    if len(filled):
        cut = values[: bounds[-1]]
        result[filled] = extreme.reduceat(cut, bounds[:-1][filled])
    return [float(v) if np.isfinite(v) else None for v in result]


def _extremes(overview: Binned) -> tuple[float, float] | None:
    if not np.isfinite(overview.low).any():
        return None
    return float(np.nanmin(overview.low)), float(np.nanmax(overview.high))
