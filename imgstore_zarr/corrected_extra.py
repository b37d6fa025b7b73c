"""Extra data whose times are corrected when they are read (`ImgStore.with_clock`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imgstore_zarr.clock import ClockCorrection
from imgstore_zarr.extra import (
    EXTRA_DATA_FILE_EXTENSIONS,
    ExtraData,
    HasSampledData,
    SampledData,
    SampledSource,
)
from imgstore_zarr.index import Float64s, Int64s

if TYPE_CHECKING:
    import pandas as pd

_TIME = "frame_time"


@dataclass(frozen=True)
class CorrectedExtra:
    """Extra data on a corrected clock: the field ``frame_time``, and when samples were taken."""

    extra: ExtraData
    clock: ClockCorrection

    def exists(self) -> bool:
        """Whether there is any; see `ExtraData`."""
        return self.extra.exists()

    def files(self, extensions: Sequence[str] = EXTRA_DATA_FILE_EXTENSIONS) -> list[str]:
        """Return where it lies; see `ExtraData`."""
        return self.extra.files(extensions)

    def read(self, ignore_corrupt_chunks: bool = False) -> pd.DataFrame | None:
        """Return one row per record; see `ExtraData`."""
        table = self.extra.read(ignore_corrupt_chunks)
        return table if table is None else self._corrected(table)

    def samplerate(self) -> float | None:
        """Return the rate in Hz by the recording's own clock; see `ExtraData`."""
        return self.extra.samplerate()

    def datasets(self, ignore_corrupt_chunks: bool = False) -> Mapping[str, SampledSource]:
        """Return what was sampled; see `HasSampledData`."""
        extra = self.extra
        found = extra.datasets(ignore_corrupt_chunks) if isinstance(extra, HasSampledData) else {}
        return {name: _CorrectedSamples(source, self.clock) for name, source in found.items()}

    def sampled(self) -> SampledData:
        """Return this and the records; see `HasSampledData`."""
        if not isinstance(self.extra, HasSampledData):
            return SampledData(self.read(), {})
        found = self.extra.sampled()
        records = found.records
        if records is not None:
            import pandas as pd

            if isinstance(records, pd.DataFrame):
                records = self._corrected(records)
            else:
                records = _CorrectedSamples(records, self.clock)
        datasets = {
            name: _CorrectedSamples(source, self.clock) for name, source in found.datasets.items()
        }
        return SampledData(records, datasets)

    def _corrected(self, table: pd.DataFrame) -> pd.DataFrame:
        if _TIME not in table.columns:
            return table
        return table.assign(**{_TIME: self.clock.apply(table[_TIME].to_numpy(np.float64))})


@dataclass(frozen=True)
class _CorrectedSamples:
    """Samples on a corrected clock."""

    source: SampledSource
    clock: ClockCorrection

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        return self.source.dtypes

    @property
    def lengths(self) -> Int64s:
        return self.source.lengths

    @property
    def samplerate(self) -> float | None:
        return self.source.samplerate

    @property
    def timed(self) -> bool:
        return self.source.timed

    def read(self, column: str, start: int, stop: int) -> NDArray[Any]:
        values = self.source.read(column, start, stop)
        return self.clock.apply(values) if column == _TIME else values

    def times(self, start: int, stop: int) -> Float64s:
        return self.clock.apply(self.source.times(start, stop))
